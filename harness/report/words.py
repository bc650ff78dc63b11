"""All that reports, dashboard and pages say, in the two languages of the project, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from harness.archive.recorded import Manifest
from harness.model import FINISHED, JobState, Outcome
from harness.wording import OUTCOMES, RULES, STATES, SYMBOLS, Language, Text, format_seconds

WORDS: Mapping[str, Text] = {
    # names of facts, heads of tables
    "run": Text("Run", "运行"),
    "profile": Text("profile", "配置"),
    "started": Text("started", "开始于"),
    "wall_time": Text("wall time", "总用时"),
    "commit": Text("commit", "提交"),
    "hardware": Text("hardware", "硬件"),
    "versions": Text("versions", "版本"),
    "exit_code": Text("exit code", "退出码"),
    "shard": Text("shard", "分片"),
    "verdict": Text("verdict", "判定"),
    "verdicts": Text("verdicts", "判定"),
    "claim": Text("claim", "声明"),
    "observed": Text("observed", "实测"),
    "reference": Text("reference", "参考"),
    "difference": Text("difference", "差"),
    "reproduced_if_in": Text("reproduced if in", "视为复现的范围"),
    "range": Text("reproduced if in", "复现范围"),
    "rule": Text("rule", "规则"),
    "explanation": Text("explanation", "说明"),
    "state": Text("state", "状态"),
    "notebook": Text("notebook", "笔记本"),
    "seed": Text("seed", "随机种子"),
    "time": Text("time", "用时"),
    "peak_memory": Text("peak memory", "峰值内存"),
    "note": Text("note", "说明"),
    "metric": Text("metric", "指标"),
    "value": Text("value", "数值"),
    "examples": Text("examples", "样本数"),
    "split": Text("split", "数据划分"),
    "interval": Text("95 % interval", "95% 区间"),
    "cell": Text("cell", "单元格"),
    "line": Text("line", "行"),
    "error": Text("error", "错误"),
    "when": Text("started", "时间"),
    "item": Text("item", "项目"),
    "what_it_is": Text("value", "值"),
    "processor": Text("processor", "处理器"),
    "cores": Text("cores", "核数"),
    "memory": Text("memory", "内存"),
    "system": Text("system", "系统"),
    # headings
    "Verdicts": Text("Verdicts", "判定"),
    "Recorded": Text("Recorded", "记录"),
    "Notebooks": Text("Notebooks", "笔记本"),
    "What_broke": Text("What broke", "出错的笔记本"),
    "Claims": Text("Claims", "声明与判定"),
    "Time_by_cell": Text("Time by cell", "单元格用时"),
    "Earlier_runs": Text("Earlier runs", "历次运行"),
    "Environment": Text("Environment", "环境"),
    "Runs_of_chapters": Text("The chapters' runs", "各章的运行"),
    "Contents": Text("Contents", "目录"),
    # phrases
    "colon": Text(": ", "："),
    "comma": Text(", ", "，"),
    "list_comma": Text(", ", "、"),
    "unknown_hardware": Text("unknown hardware", "未知硬件"),
    "uncommitted": Text(" (with uncommitted changes)", "（另有未提交的改动）"),
    "no_commit": Text("none", "无"),
    "mean_of": Text(" (mean of {})", "（{} 次平均）"),
    "mean_below": Text("mean of {}", "{} 次平均"),
    "reference_from": Text("from {}", "来自 {}"),
    "cell_place": Text("cell {}, id {}", "第 {} 个单元格，id {}"),
    "cell_number": Text("{}", "第 {} 个"),
    "with_seed": Text("seed {}", "种子 {}"),
    "broke": Text("✗ {} notebooks broke", "✗ {} 个笔记本没有跑完"),
    "by_seed": Text("by seed", "各次的值"),
    "over_time": Text("over time", "历次运行"),
    "nothing_claimed": Text("Nothing was claimed or recorded.", "没有声明，也没有记录。"),
    "no_claims": Text("Nothing is claimed of these notebooks.", "这些笔记本没有声明。"),
    "no_notebook": Text("No notebook was run.", "没有运行笔记本。"),
    "not_judged": Text(
        "This is one shard of a run: nothing is judged before `harness report --merge`.",
        "这只是一次运行的一个分片：用 `harness report --merge` 合并之后才判定。",
    ),
    "date": Text("{0:%Y-%m-%d}", "{0.year} 年 {0.month} 月 {0.day} 日"),
    "moment": Text("{0:%Y-%m-%d %H:%M} UTC", "{0.year} 年 {0.month} 月 {0.day} 日 {0:%H:%M}（UTC）"),
    "gpu": Text("{} ({})", "{}（{}）"),
    "cpu": Text("CPU with {} cores ({})", "{} 核 CPU（{}）"),
    # figures
    "legend": Text(
        "Dots: this run, one for each seed; hollow dots above: blessed runs; shaded: what counts as reproduced;"
        " dashed: the reference. Over time, on this class of hardware: ● pass, × fail, ○ other verdicts; an upright"
        " line spans the seeds of a run.",
        "实心点：本次运行，一个随机种子一点；上排空心点：参考运行；阴影：视为复现的范围；虚线：参考值。"
        "历次曲线只含同类硬件上的运行：● 通过，× 未通过，○ 其他判定；竖线是一次运行中各个种子的跨度。",
    ),
    "blessed": Text("blessed", "参考"),
    "this_run": Text("this run", "本次"),
    "reproduced": Text("counts as reproduced: {}", "复现范围 {}"),
    "runs_from_to": Text("{} runs, {} to {}", "{} 次运行，{} 至 {}"),
    "lowest": Text("lowest {}", "最低 {}"),
    "highest": Text("highest {}", "最高 {}"),
    "latest": Text("latest {}", "最近 {}"),
    "more_cells": Text("{} more cells", "其余 {} 个单元格"),
    "cells": Text("{} cells", "{} 个单元格"),
    "slowest": Text("slowest {} {}", "最慢 {} {}"),
    "many_values": Text("{} values in {}", "{} 个值，范围 {}"),
    # the dashboard
    "read_chapter": Text("Read this chapter", "读这一章"),
    "Not_held": Text("What did not hold", "没有站住的"),
    "only": Text("Show only", "只看"),
    "all": Text("all", "全部"),
    "beyond": Text("{} outside", "超出 {}"),
    "claims_failed": Text("claims that do not hold: {}", "{} 条声明不成立"),
    "notebooks_broke": Text("notebooks that broke: {}", "{} 个笔记本没有跑完"),
    "does_not_hold": Text("✗ Not all holds; {}", "✗ 有的数字没有站住：{}"),
    "holds": Text(
        "✓ The book holds: {} claims pass, none fails", "✓ 书里的数字仍然成立：{} 条声明通过，没有一条未通过"
    ),
    "nothing_shown": Text(
        "Nothing was shown: no claim was judged a pass", "还不能说什么：没有一条声明判为通过"
    ),
    "same_hardware": Text(
        "Hardware: this run and its references are of one class, {}.",
        "硬件：本次运行和参考运行同属一类（{}），可以直接比较。",
    ),
    "other_hardware": Text(
        "Hardware differs: this run is on {}; {} of {} verdicts compare with references from {}.",
        "硬件不同：本次运行在 {} 上；{} 条判定（共 {} 条）的参考来自 {}。",
    ),
    "strip_legend": Text(
        "Bar at the right: shaded is what counts as reproduced, a dot is a run inside, a cross one outside.",
        "右边的小图：阴影是复现范围，圆点是落在里面的一次运行，叉是落在外面的。",
    ),
    "without_claims": Text("no claims", "没有声明"),
    "no_chapter": Text("This run holds no chapter of this book.", "这次运行不含本书的章节。"),
    "chapter_without_claims": Text(
        "Nothing is claimed of this chapter under this profile.", "这一章在此配置下没有声明。"
    ),
    "passes": Text("Why, value by value and over time", "判定依据、各次的值和历次曲线"),
    "cached_from": Text("result of {}", "结果来自 {}"),
    "no_run": Text(
        "No run is recorded yet. Run `python -m harness run --book` first, then come back.\n",
        "还没有运行记录。先运行 `make book`（或 `python -m harness run`），再回到这里。\n",
    ),
    "of_profile": Text("profile `{}`", "`{}` 配置"),
    "took": Text("took {}", "用时 {}"),
    "of_commit": Text("commit {}", "提交 {}"),
    "of_run": Text("run `{}`", "运行编号 `{}`"),
    "dashboard": Text("dashboard", "复现看板"),
    # the front page's box
    "no_numbers": Text(
        "**No run is recorded yet**: the book has no numbers to show. Run `python -m harness run --book` first.",
        "**还没有运行记录**：书里没有数字可看。先运行 `make book`，再回到这里。",
    ),
    "numbers": Text("**The book's numbers**", "**书里的数字**"),
    "not_finished": Text("did not finish", "没有跑完"),
    "not_run": Text("did not run", "没有运行"),
    "changed_since": Text("changed since they ran", "代码在运行之后改过"),
    "made": Text("made {}", "做于 {}"),
    "from_to": Text("{} to {}", "{}至 {}"),
    "all_took": Text("all chapters took {}", "各章合计 {}"),
    "kept_since": Text("unchanged chapters: {}, results since {}", "{} 章没有变，沿用 {}以来的结果"),
    "kept": Text("unchanged chapters: {}, earlier results", "{} 章没有变，沿用先前的结果"),
    "take_along": Text("**Take along** the whole book as {}", "**带走** 整本书的 {}"),
    "source": Text("source", "源代码"),
    "reading": Text("about {} min to read", "读约 {} 分钟"),
    "reading_and_running": Text("about {} min to read, {} to run", "读约 {} 分钟，运行 {}"),
    # a chapter's box, its cells, its metrics
    "never_ran": Text(
        "**This chapter has not run yet**: below is its code, without outputs and numbers."
        " Run `python -m harness run` first, then build the book again.",
        "**本章还没有运行过**：下面只有代码，没有输出和数字。先运行 `python -m harness run`，再重新生成本书。",
    ),
    "shown_until": Text("the outputs below end where it broke", "下面的输出到中断处为止"),
    "shown_none": Text("there are no outputs below", "下面没有输出"),
    "because": Text(" (`{}`)", "（`{}`）"),
    "did_not_finish": Text(
        "**{} This chapter did not finish in this run**; {}{}.", "**{} 本章在这次运行中没有跑完**，{}{}。"
    ),
    "left_nothing": Text(
        "**This run left no notebook of this chapter**: below is its code, without outputs and numbers.",
        "**这次运行没有留下本章的笔记本**：下面只有代码，没有输出和数字。",
    ),
    "stale": Text(
        "**The code of this chapter changed since this run**: below are the text, code and numbers of then.",
        "**本章的代码在这次运行之后改过**：下面是运行时的旧文本、旧代码和旧数字。",
    ),
    "of_seed": Text("seed {}", "随机种子 {}"),
    "of_memory": Text("peak memory {}", "峰值内存 {}"),
    "kept_from": Text("result kept from run `{}`", "结果沿用运行 `{}`"),
    "solution": Text("Solution", "参考答案"),
    "hide_solution": Text("Hide the solution", "收起答案"),
    "setup": Text("Set-up: finds the book, adds missing packages", "准备：找到书，补上缺的包"),
    "hide": Text("Hide", "收起"),
    "parameters": Text(
        "Parameters (to change one: edit this cell and run from the start, or harness run --param name=value)",
        "参数（改一个值：在笔记本里改这一格，从头运行；或 harness run --param 名字=值）",
    ),
    "recorded": Text("recorded", "记录"),
    "interval_of": Text("95 % interval {}", "95% 区间 {}"),
    "aside": Text(" ({})", "（{}）"),
    # tasks × models
    "unverified": Text("*not verified*", "*未验证*"),
    "method": Text("*Method* ", "*做法*　"),
    "task": Text(
        "Notebook: [{0}]({0}.ipynb); the model goes into `{1}`", "笔记本：[{0}]({0}.ipynb)；模型放进 `{1}`"
    ),
    "set_too": Text(", with {}", "，另设 {}"),
    "full_stop": Text(".", "。"),
    "matrix_head": Text(
        "| model | published | source and method | ours | difference (points) | verdict |",
        "| 模型 | 公布 | 出处和做法 | 我们的 | 差（百分点） | 判定 |",
    ),
    "not_applicable": Text("not applicable: {}", "不适用：{}"),
    "semicolon": Text("; ", "；"),
    "not_found": Text("none found", "没有查到"),
    "ours": Text("{} ({} runs, {})", "{}（{} 次，{}）"),
    # the copies' title page
    "cover_no_run": Text("No run is recorded yet", "还没有运行记录"),
    "cover_run": Text("Numbers from run {}", "数字取自运行 {}"),
    "cover_profile": Text("profile {} · {}", "{} 配置 · {}"),
}


class Words:
    """The words of one language: ``words.profile``, and ``words("mean_of", 3)`` where something is filled in."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __getattr__(self, name: str) -> str:
        try:
            return WORDS[name].into(self.language)
        except KeyError:
            raise AttributeError(name) from None

    def __call__(self, name: str, *values: object) -> str:
        return WORDS[name].into(self.language).format(*values)

    def into(self, text: Text) -> str:
        return text.into(self.language)

    def outcome_words(self, outcome: Outcome) -> str:
        """Symbol and word of a judgement: colour alone never says it."""
        return f"{SYMBOLS[outcome]} {OUTCOMES[outcome].into(self.language)}"

    def state_words(self, state: JobState) -> str:
        """Symbol and word of a notebook's end state."""
        return f"{SYMBOLS[tone_of(state)]} {STATES[state].into(self.language)}"

    def rule_name(self, rule: str) -> str:
        return RULES[rule].into(self.language) if rule in RULES else rule

    def took_time(self, seconds: float | None) -> str:
        return format_seconds(seconds, self.language)

    def day_of(self, iso: str) -> str:
        """“2026 年 11 月 24 日”; a dash where there is no date."""
        when = _moment(iso)
        return self("date", when) if when else iso or "—"

    def moment_of(self, iso: str) -> str:
        """“2026 年 11 月 24 日 01:30（UTC）”; the text itself where it is no date."""
        when = _moment(iso)
        return self("moment", when) if when else iso or "—"

    def machine_of(self, manifest: Manifest) -> str:
        """“2 核 CPU（cpu-x86_64-bf16）” or the GPU's name with its class."""
        hardware = manifest.hardware or self.unknown_hardware
        gpu, cores = manifest.environment.get("gpu"), manifest.environment.get("cores")
        if gpu:
            return self("gpu", gpu, hardware)
        return self("cpu", cores, hardware) if cores else hardware


def tone_of(state: JobState) -> Outcome:
    """The judgement that a notebook's end state looks like."""
    return Outcome.PASS if state in FINISHED else Outcome.FAIL


def _moment(iso: str) -> datetime | None:
    try:
        return datetime.fromisoformat(iso)
    except ValueError:
        return None
