/* Matrix times vector in WebAssembly, four numbers at once. Each line of bytes is the instruction beside it. */
"use strict";

(function (home) {
  const [I32, V128, NOTHING] = [0x7f, 0x7b, 0x40];
  const [W, X, OUT, ROWS, BYTES, AT, SUM] = [0, 1, 2, 3, 4, 5, 6];
  const code = [
    0x03, NOTHING,                              // loop $row
    0xfd, 0x0c, ...new Array(16).fill(0),       //   v128.const 0
    0x21, SUM,                                  //   local.set $sum
    0x41, 0, 0x21, AT,                          //   $at = 0
    0x03, NOTHING,                              //   loop $columns
    0x20, W, 0x20, AT, 0x6a, 0xfd, 0x00, 0, 0,  //     v128.load $W + $at
    0x20, X, 0x20, AT, 0x6a, 0xfd, 0x00, 0, 0,  //     v128.load $x + $at
    0xfd, 0xe6, 0x01,                           //     f32x4.mul
    0x20, SUM, 0xfd, 0xe4, 0x01, 0x21, SUM,     //     $sum = f32x4.add $sum
    0x20, AT, 0x41, 16, 0x6a, 0x22, AT,         //     $at += 16
    0x20, BYTES, 0x49, 0x0d, 0, 0x0b,           //     br_if $columns, $at < $bytes
    0x20, OUT,                                  //   $out
    ...[0, 1, 2, 3].flatMap((lane) => [0x20, SUM, 0xfd, 0x1f, lane]), // the four sums
    0x92, 0x92, 0x92, 0x38, 0, 0,               //   f32.add three times, f32.store
    0x20, W, 0x20, BYTES, 0x6a, 0x21, W,        //   $W += $bytes
    0x20, OUT, 0x41, 4, 0x6a, 0x21, OUT,        //   $out += 4
    0x20, ROWS, 0x41, 1, 0x6b, 0x22, ROWS,      //   $rows -= 1
    0x0d, 0, 0x0b,                              //   br_if $row
    0x0b,
  ];
  const text = (word) => [word.length, ...new TextEncoder().encode(word)];
  const sized = (bytes) => (bytes.length < 128 ? [bytes.length] : [bytes.length & 127 | 128, bytes.length >> 7]).concat(bytes);
  const section = (number, ...bytes) => [number, ...sized(bytes)];
  const binary = Uint8Array.from([
    ...text("\0asm").slice(1), 1, 0, 0, 0,
    ...section(1, 1, 0x60, 5, I32, I32, I32, I32, I32, 0),          // (func (param i32 i32 i32 i32 i32))
    ...section(2, 1, ...text("live"), ...text("memory"), 2, 0, 1),  // (import "live" "memory" (memory 1))
    ...section(3, 1, 0),
    ...section(7, 1, ...text("times"), 0, 0),                       // (export "times")
    ...section(10, 1, ...sized([2, 1, I32, 1, V128, ...code])),     // (local $at i32) (local $sum v128)
  ]);

  /* Room for *count* float32 numbers, and a product of what lies in it. */
  class Room {
    constructor(count) {
      this.memory = new WebAssembly.Memory({ initial: Math.ceil((4 * count) / 65536) });
      const module = new WebAssembly.Module(binary);
      this.product = new WebAssembly.Instance(module, { live: { memory: this.memory } }).exports.times;
      this.taken = 0;
    }

    /* The next *count* numbers, all 0; RangeError where there is no room for them. */
    vector(count) {
      const numbers = new Float32Array(this.memory.buffer, this.taken, count);
      this.taken += 4 * count;
      return numbers;
    }

    /* out = W x, W (out.length, x.length), x a multiple of four long; all of this room. */
    times(W, x, out) {
      this.product(W.byteOffset, x.byteOffset, out.byteOffset, out.length, 4 * x.length);
      return out;
    }
  }

  home.Room = Room;
})(self);
