"""What one CUDA card does with the book's loops: ``python -m benchmarks.gpu``, or ``make gpu``.

Parts, by worth: ``encoders`` (chapter 5's loop against HF Trainer), ``decoders`` (supervised fine-tuning of a decoder
against TRL), ``kernels`` (attention kernels and ``torch.compile``), ``chapters`` (the book's cells on the card). Each
part is a process of its own, so that one that hangs, dies or poisons the card leaves the others alone.
"""
