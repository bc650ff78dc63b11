"""Skip-gram with negative sampling (Mikolov et al. 2013, arXiv:1310.4546): what chapter 1 teaches, by the same names.

Shapes: ``V`` words in the vocabulary, ``d`` numbers a vector, ``B`` pairs a batch, ``K`` negatives a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def build_vocabulary(sentences: Iterable[Sequence[str]], min_count: int) -> tuple[list[str], np.ndarray]:
    """Words that occur at least ``min_count`` times, the most frequent first, and how often, (V,)."""
    counter = Counter(word for sentence in sentences for word in sentence)
    kept = [(word, n) for word, n in counter.most_common() if n >= min_count]
    return [word for word, _ in kept], np.array([n for _, n in kept])


def subsample(
    sentences: Sequence[np.ndarray], counts: np.ndarray, threshold: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Drop frequent words at random: one of frequency f stays with probability √(threshold/f) (section 2.3)."""
    keep = np.sqrt(threshold * counts.sum() / counts)  # above 1: always
    return [ids[rng.random(len(ids)) < keep[ids]] for ids in sentences]


def skip_gram_pairs(sentences: Sequence[np.ndarray], window: int, rng: np.random.Generator) -> np.ndarray:
    """All pairs (word, neighbour) up to ``window`` words apart, both ways round, shuffled: (pairs, 2)."""
    ids = np.concatenate(sentences)
    sentence = np.repeat(np.arange(len(sentences)), [len(s) for s in sentences])
    pairs = []
    for k in range(1, window + 1):
        same = sentence[:-k] == sentence[k:]
        left, right = ids[:-k][same], ids[k:][same]
        pairs += [np.stack((left, right), axis=1), np.stack((right, left), axis=1)]
    return rng.permutation(np.concatenate(pairs))


class SkipGram(nn.Module):
    """Two tables of vectors: ``U`` for a word itself, which is what one keeps, ``W`` for it as a neighbour."""

    def __init__(self, V: int, d: int) -> None:
        super().__init__()
        self.U = nn.Parameter((torch.rand(V, d) - 0.5) / d)
        self.W = nn.Parameter(torch.zeros(V, d))

    def forward(self, pairs: torch.Tensor, negatives: torch.Tensor, k: float) -> torch.Tensor:
        """Mean loss of pairs (B, 2), in nats; they share the negatives (K,), which together count as ``k``."""
        u = self.U[pairs[:, 0]]  # (B, d)
        true = (u * self.W[pairs[:, 1]]).sum(1)  # (B,)
        false = u @ self.W[negatives].T  # (B, K)
        return -F.logsigmoid(true).mean() - k * F.logsigmoid(-false).mean()


def train_skip_gram(
    sentences: Sequence[np.ndarray],
    counts: np.ndarray,
    *,
    d: int,
    window: int,
    threshold: float,
    num_epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    num_negatives: int = 64,
    k: float = 5.0,
    device: torch.device | str = "cpu",
) -> tuple[SkipGram, list[float]]:
    """Train on ``sentences`` of word ids; returns the model and the loss of every step."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = SkipGram(len(counts), d).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    weights, curve = torch.tensor(counts**0.75), []
    for epoch in range(num_epochs):
        pairs = skip_gram_pairs(subsample(sentences, counts, threshold, rng), window, rng)
        batches = torch.from_numpy(pairs).split(batch_size)
        for i, batch in enumerate(batches):
            progress = (epoch + i / len(batches)) / num_epochs
            optimizer.param_groups[0]["lr"] = lr * (1 - progress)
            negatives = torch.multinomial(weights, num_negatives, True, generator=generator)
            loss = model(batch.to(device), negatives.to(device), k)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
    return model, curve


def nearest(vectors: torch.Tensor, wanted: torch.Tensor, count: int) -> list[int]:
    """Rows of ``vectors`` (V, d) with the largest cosine to ``wanted`` (d,), best first."""
    cosine = F.normalize(vectors, dim=1) @ F.normalize(wanted, dim=0)  # (V,)
    return cosine.topk(count).indices.tolist()


# --- how good are they? ---------------------------------------------------------------------------------

CATEGORIES = {
    "国家": (
        "中国 美国 日本 英国 法国 德国 俄罗斯 韩国 朝鲜 泰国 印度 印度尼西亚 印尼 意大利 伊拉克 "
        "伊朗 以色列 埃及 约旦 南非 加拿大 澳大利亚 墨西哥 巴西 阿根廷 智利 秘鲁 古巴 越南 老挝 "
        "柬埔寨 缅甸 菲律宾 马来西亚 新加坡 文莱 巴基斯坦 孟加拉国 蒙古 阿富汗 土耳其 叙利亚 "
        "黎巴嫩 科威特 沙特 巴林 阿尔及利亚 摩洛哥 突尼斯 利比亚 苏丹 肯尼亚 贝宁 几内亚 赞比亚 "
        "荷兰 比利时 卢森堡 瑞士 瑞典 挪威 丹麦 芬兰 奥地利 西班牙 葡萄牙 希腊 波兰 捷克 匈牙利 "
        "罗马尼亚 保加利亚 乌克兰 白俄罗斯 爱沙尼亚 拉脱维亚 立陶宛 格鲁吉亚 哈萨克斯坦 "
        "乌兹别克斯坦 塔吉克斯坦 土库曼斯坦 吉尔吉斯斯坦 爱尔兰 苏联 南斯拉夫 波黑 委内瑞拉 "
        "哥斯达黎加 马耳他 新西兰 巴勒斯坦 阿尔巴尼亚 俄国"
    ),
    "省区": (
        "河北 山西 辽宁 吉林 黑龙江 江苏 浙江 安徽 福建 江西 山东 河南 湖北 湖南 广东 海南 四川 "
        "贵州 云南 陕西 甘肃 青海 台湾 内蒙古 广西 西藏 宁夏 新疆 北京 天津 上海 重庆 香港 澳门 "
        "河北省 山西省 辽宁省 吉林省 黑龙江省 江苏省 浙江省 安徽省 福建省 江西省 山东省 河南省 "
        "湖北省 湖南省 广东省 海南省 四川省 贵州省 云南省 陕西省 甘肃省 青海省 台湾省 北京市 "
        "天津市 上海市 重庆市"
    ),
    "城市": (
        "北京 上海 天津 重庆 广州 深圳 南京 杭州 武汉 成都 西安 沈阳 大连 哈尔滨 长春 济南 青岛 "
        "郑州 石家庄 太原 合肥 福州 厦门 南昌 长沙 海口 南宁 昆明 贵阳 拉萨 兰州 西宁 银川 "
        "乌鲁木齐 呼和浩特 苏州 温州 宁波 嘉兴 徐州 大庆 洛阳 张家口 珠海 香港 澳门 北京市 上海市 "
        "天津市 重庆市 广州市 深圳市 南京市 武汉市 成都市 沈阳市 大连市 哈尔滨市 长春市 济南市 "
        "青岛市 郑州市 合肥市 福州市 长沙市 海口市 烟台 桂林 无锡 扬州 连云港 漳州"
    ),
    "外国城市": (
        "华盛顿 纽约 伦敦 巴黎 莫斯科 东京 汉城 波恩 柏林 罗马 开罗 耶路撒冷 巴格达 德黑兰 安曼 "
        "维也纳 日内瓦 布鲁塞尔 渥太华 悉尼 堪培拉 曼谷 雅加达 马尼拉 新加坡 吉隆坡 伊斯兰堡 "
        "新德里 墨西哥城 珀斯 多伦多 蒙特利尔 波士顿 旧金山 洛杉矶 亚特兰大 芝加哥 伊斯坦布尔 "
        "安卡拉 斯德哥尔摩 阿尔及尔 米兰 大阪 长野 河内 布拉格 华沙 基辅 内罗毕 哈瓦那 香港"
    ),
    "姓": (
        "王 李 张 刘 陈 杨 赵 黄 周 吴 徐 孙 胡 朱 高 林 何 郭 马 罗 梁 宋 郑 谢 韩 唐 冯 于 董 "
        "萧 程 曹 袁 邓 许 傅 沈 曾 彭 吕 苏 卢 蒋 蔡 贾 丁 魏 薛 叶 阎 余 潘 杜 戴 夏 钟 汪 田 "
        "任 姜 范 方 石 姚 谭 廖 邹 熊 金 陆 郝 孔 白 崔 康 毛 邱 秦 江 史 顾 侯 邵 孟 龙 万 段 "
        "雷 钱 汤 尹 黎 易 常 武 乔 贺 赖 龚 文 陶 肖 施 俞 齐 费 尉 迟 洪 温 庄 安 关 柯 古 牛 "
        "翟"
    ),
    "小数目": (
        "一 二 三 四 五 六 七 八 九 十 两 几 十几 几十 数十 数百 百 千 万 十一 十二 十三 十四 "
        "十五 十六 十八 二十 三十 四十 五十 一百 上百 几百 数 多 1 2 3 4 5 6 7 8 9 10 11 12 20 30"
    ),
    "序数": ("第一 第二 第三 第四 第五 第六 第七 第八 第九 第十 第十一 第十二 首 上 下 本"),
    "月份": (
        "1月 2月 3月 4月 5月 6月 7月 8月 9月 10月 11月 12月 元月 一月 二月 三月 四月 五月 六月 "
        "七月 八月 九月 十月 十一月 十二月"
    ),
    "职务": (
        "主席 总统 总理 副总理 首相 部长 副部长 外长 省长 副省长 市长 副市长 县长 书记 副书记 "
        "总书记 委员 副主席 主任 副主任 局长 副局长 司长 院长 副院长 校长 会长 副会长 秘书长 大使 "
        "总经理 副总经理 董事长 经理 厂长 议长 国务卿 国王 司令员 政委 处长 科长 所长 外交部长 "
        "国防部长 常委 国务委员 委员长 副委员长 总裁 行长 台长 社长 主编 总编辑 代表 发言人 "
        "理事长 团长"
    ),
    "度量": (
        "公里 米 厘米 毫米 公斤 斤 吨 克 元 亿 万 亩 公顷 平方米 平方公里 立方米 千瓦 千瓦时 千米 "
        "美元 英镑 马克 法郎 日元 港元 港币 加元 铢 人次 年 天 小时 分钟 秒 摄氏度 ℃ 级 户 头 辆 "
        "台 套 件 名 人 个 架 座 条 艘 倍 万元 亿元 盾 角 分 度 公升 升"
    ),
    "体育": (
        "足球 篮球 排球 乒乓球 羽毛球 网球 游泳 跳水 体操 田径 举重 射击 围棋 象棋 滑雪 滑冰 棋 "
        "棒球 垒球 水球 花样游泳 蹼泳 摔跤 柔道 拳击 击剑 自行车 马拉松 武术 冰球 曲棍球 赛车 "
        "联赛 锦标赛 世界杯 奥运会 亚运会 冬奥会 全运会 比赛 决赛 冠军 亚军 球队 球员 教练 主教练 "
        "甲A 甲B 队员 选手 运动员 中国队 俱乐部 男篮 女篮 男排 女排 男子 女子 世锦赛 公开赛 "
        "邀请赛 大奖赛 杯赛 国际象棋 大师赛 赛 杯 球迷 足协 裁判 世界级"
    ),
    "亲属": (
        "父亲 母亲 爸爸 妈妈 丈夫 妻子 儿子 女儿 哥哥 弟弟 姐姐 妹妹 爷爷 奶奶 孙子 孙女 爱人 "
        "孩子 父母 夫妇 夫妻 老伴 女婿 儿媳 媳妇 舅舅 叔叔 伯伯 阿姨 娘 爹 兄弟 姐妹 家人 亲人 "
        "婆婆 公公 外婆 外公 姑娘 小孩 婴儿 儿媳妇 老人 母女 母子 父子 双亲 大娘 大爷 大妈 老太太"
    ),
    "方位": (
        "东部 西部 南部 北部 中部 中西部 东北部 西北部 东南部 西南部 沿海 内地 北方 南方 东北 "
        "西北 西南 东南 华北 华东 华南 中原 内陆 东方 西方 西岸 沿岸 边境 中南部 山区 境内 地区"
    ),
    "年份": " ".join(f"{year}年" for year in range(1900, 2051)) + " 今年 去年 前年 明年 上年 当年",
    "日": " ".join(f"{day}日" for day in range(1, 32)) + " 今天 昨天 今日 明天",
}
"""Words of each category, written by hand; generous, not complete."""

QUERIES = {
    "国家": "美国 日本 法国",
    "省区": "河北 四川 江苏",
    "城市": "上海 广州 武汉",
    "外国城市": "巴黎 莫斯科",
    "姓": "王 李 刘",
    "小数目": "三 五",
    "序数": "第二 第三",
    "月份": "3月 8月",
    "年份": "1996年 1994年",
    "日": "13日 8日",
    "职务": "总统 部长 书记",
    "度量": "公斤 公里",
    "体育": "足球 冠军",
    "亲属": "母亲 妻子",
    "方位": "西部 南部",
}
"""Words whose neighbours are judged, by category."""


def neighbour_hits(vectors: torch.Tensor, words: Sequence[str], count: int = 5) -> dict[str, list[bool]]:
    """For each query word in the vocabulary: which of its ``count`` nearest words belong to its category."""
    row = {word: i for i, word in enumerate(words)}
    hits = {}
    for category, queries in QUERIES.items():
        members = set(CATEGORIES[category].split())
        for query in queries.split():
            if query in row:
                found = nearest(vectors, vectors[row[query]], count + 1)
                hits[query] = [words[i] in members for i in found if i != row[query]][:count]
    return hits
