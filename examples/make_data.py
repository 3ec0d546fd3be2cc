"""Write the sample data of this repository: nine small CLUE-style data sets and a vocabulary.

    python examples/make_data.py [--output_dir examples/data]

What comes out, about 1.9 MB in all, in the file formats of the real data sets:

    <output_dir>/<dataset>/{train,dev,test}.json   afqmc tnews iflytek ocnli cmnli cluewsc2020 csl
                                                   cmrc2018
    <output_dir>/msra_ner/{train,test}.tsv         tokens, a tab, tags; both joined by \\x02
    <output_dir>/../model/vocab.txt                character vocabulary, about 1,400 entries

Every text is made from the word lists below, so the data is small, free to share, and easy enough
for a tiny model that starts from random weights; it says nothing about quality on real data.
Every run, on every Python version, writes the same bytes.
"""

import argparse
import json
import os
import random
import re

# ------------------------------------------------------------------------------------- helpers


class Dice:
    """Seeded choices that only use `Random.random()`.

    `choice`, `shuffle` and `sample` have changed their results between Python versions; the
    sequence of `random()` for a given seed has not.
    """

    def __init__(self, seed):
        self._random = random.Random(seed)

    def below(self, n):
        return int(self._random.random() * n)

    def between(self, low, high):
        """An integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability):
        return self._random.random() < probability

    def pick(self, items):
        return items[self.below(len(items))]

    def sample(self, items, count):
        """`count` different items, in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(count)]

    def shuffled(self, items):
        return self.sample(items, len(items))

    def other(self, items, item):
        """An item that is not `item`."""
        return self.pick([i for i in items if i != item])


def generate(make_row, count, key):
    """`count` rows of make_row(number), no two of them with the same key."""
    rows, seen = [], set()
    attempts = 0
    while len(rows) < count:
        row = make_row(len(rows))
        attempts += 1
        if attempts > 50 * count:
            raise RuntimeError("the templates do not give enough different rows")
        if key(row) not in seen:
            seen.add(key(row))
            rows.append(row)
    return rows


def split(rows, dice, dev, test, hidden=("label",)):
    """Shuffle rows and cut them into train, dev and test; test rows lose their `hidden` fields."""
    rows = dice.shuffled(rows)
    parts = {"train": rows[dev + test :], "dev": rows[:dev], "test": rows[dev : dev + test]}
    parts["test"] = [{k: v for k, v in r.items() if k not in hidden} for r in parts["test"]]
    return parts


def numbered(parts, field="id"):
    """Give the rows of each split their number within the split."""
    return {
        name: [{**{k: v for k, v in row.items() if k != field}, field: i} for i, row in enumerate(p)]
        for name, p in parts.items()
    }


# --------------------------------------------------------------------------------- shared words

SURNAMES = list("王李张刘陈杨黄赵周吴徐孙马朱胡林郭何高罗郑梁谢宋唐许邓韩冯曹")
GIVEN = list("伟芳娜敏静强磊洋勇艳杰娟涛超秀霞刚桂英华玉萍红军平辉玲志鹏雪梅建文婷浩宇晨欣怡博")
PLACE_FIRST = list("青清安永长宁临广新金玉龙凤白石云平东西南北太延丰")
PLACE_SECOND = list("阳川溪河泉山林城州源水江桥湖岭塘浦陵原沙")


def person(dice):
    return dice.pick(SURNAMES) + "".join(dice.sample(GIVEN, 2 if dice.chance(0.7) else 1))


def place(dice, suffixes="市县镇"):
    return dice.pick(PLACE_FIRST) + dice.pick(PLACE_SECOND) + dice.pick(suffixes)


# ---------------------------------------------------------------------------------------- afqmc

AFQMC_PRODUCTS = ["信用卡", "备用金", "零钱包", "车险贷"]
AFQMC_INTENTS = [
    ["怎么开通{}", "{}在哪里申请", "我要办理{}"],
    ["{}如何注销", "不用{}了怎么取消", "{}能不能停掉"],
    ["{}额度可以涨吗", "{}怎样才能提额", "{}额度太低了"],
    ["{}逾期了怎么办", "忘记还{}会罚钱吗", "{}晚还几天有影响吗"],
]
AFQMC_AFTER = ["", "", "？", "，谢谢"]


def make_afqmc():
    """Pairs of questions on one credit product: the same intention in other words, or not."""
    dice = Dice("afqmc")

    def question(product, intent, wording):
        text = AFQMC_INTENTS[intent][wording].format(product)
        return text + dice.pick(AFQMC_AFTER)

    def row(number):
        same = number % 2 == 0
        product = dice.pick(AFQMC_PRODUCTS)
        intents = range(len(AFQMC_INTENTS))
        intent = dice.pick(intents)
        other_intent = intent if same else dice.other(intents, intent)
        wordings = dice.sample(range(3), 2)
        return {
            "id": number,
            "sentence1": question(product, intent, wordings[0]),
            "sentence2": question(product, other_intent, wordings[1]),
            "label": "1" if same else "0",
        }

    rows = generate(row, 1300, lambda r: r["sentence1"] + "|" + r["sentence2"])
    return numbered(split(rows, dice, dev=200, test=60))


# ---------------------------------------------------------------------------------------- tnews

# code: (description, subjects, what is said of them)
TNEWS = {
    "100": (
        "news_story",
        ["婆婆", "老奶奶", "小夫妻", "邻居大妈", "打工的父亲", "养女", "新媳妇", "老两口"],
        [
            "为一碗汤吵了三年",
            "离家十年终于回来",
            "收到一封没有署名的信",
            "把积蓄都给了陌生人",
            "临终前说出心里话",
            "在雨里等了一夜",
        ],
    ),
    "101": (
        "news_culture",
        ["书法家", "古琴", "青花瓷", "唐诗", "剪纸", "博物馆", "昆曲", "民间刺绣"],
        [
            "的传承之美",
            "在展厅亮相",
            "背后的千年文化",
            "让年轻人爱上传统",
            "的作品值得收藏",
            "的题字怎么读",
        ],
    ),
    "102": (
        "news_entertainment",
        [
            "女歌手",
            "这部电视剧",
            "综艺节目",
            "当红演员",
            "新人导演",
            "老戏骨",
            "偶像组合",
            "贺岁电影",
        ],
        ["票房破亿", "公布恋情", "红毯造型太美", "粉丝在机场接机", "片场花絮曝光", "收视率第一"],
    ),
    "103": (
        "news_sports",
        ["国足", "女排", "NBA球星", "乒乓球小将", "主教练", "马拉松选手", "中超球队", "游泳队"],
        ["逆转夺冠", "赛后落泪", "绝杀对手", "因伤缺席决赛", "连胜被终结", "打破全国纪录"],
    ),
    "104": (
        "news_finance",
        [
            "央行",
            "人民币汇率",
            "理财产品",
            "民营企业",
            "小微贷款",
            "外汇储备",
            "支付公司",
            "创业基金",
        ],
        [
            "迎来新规定",
            "规模持续扩大",
            "利率再次下调",
            "融资难怎么解决",
            "上半年营收增长",
            "收益还会下降吗",
        ],
    ),
    "106": (
        "news_house",
        ["二手房", "学区房", "刚需买房的人", "楼盘", "开发商", "公积金", "租房", "小户型"],
        [
            "房价降了多少",
            "该选高层还是低层",
            "交房后发现漏水",
            "首付比例有变",
            "装修要注意什么",
            "限购放松了吗",
        ],
    ),
    "107": (
        "news_car",
        ["国产SUV", "新能源车", "这款轿车", "德系车", "自动挡", "老司机", "皮卡", "发动机"],
        [
            "油耗只要五个",
            "试驾感受如何",
            "配置提升却不加价",
            "高速上突然失控",
            "底盘实拍",
            "适合家用吗",
        ],
    ),
    "108": (
        "news_edu",
        ["高考生", "小学老师", "考研复试", "幼儿园", "英语四级", "班主任", "大学录取", "家长会"],
        [
            "怎样复习效率高",
            "志愿填报有技巧",
            "作业太多怎么办",
            "成绩公布",
            "作文满分",
            "课堂该怎么上",
        ],
    ),
    "109": (
        "news_tech",
        ["iPhone", "人工智能", "国产芯片", "智能手机", "5G网络", "无人机", "机器人", "云计算"],
        [
            "新品发布",
            "屏幕技术升级",
            "处理器性能如何",
            "系统更新了什么",
            "算法更聪明",
            "电池能用多久",
        ],
    ),
    "110": (
        "news_military",
        ["航母", "歼击机", "陆军", "导弹", "特种兵", "潜艇", "军舰", "坦克"],
        ["参加实弹演习", "完成海上训练", "列装部队", "火力有多强", "现身阅兵场", "夜间紧急出动"],
    ),
    "112": (
        "news_travel",
        ["古镇", "海岛", "雪山", "自驾游", "民宿", "草原", "国家公园", "温泉"],
        ["旅游攻略", "门票免费", "风景美如画", "三天两夜怎么玩", "游客最爱打卡", "淡季去更舒服"],
    ),
    "113": (
        "news_world",
        ["美国总统", "联合国", "俄罗斯", "英国首相", "中东局势", "欧盟", "日本政府", "外交部长"],
        ["宣布制裁", "举行双边会谈", "大选结果出炉", "发表联合声明", "拒绝谈判", "边境冲突升级"],
    ),
    "114": (
        "news_stock",
        ["大盘", "A股", "创业板", "龙头股", "散户", "次新股", "沪指", "这只股票"],
        ["涨停板打开", "明天走势如何", "尾盘跳水", "主力资金流入", "还能抄底吗", "缩量调整"],
    ),
    "115": (
        "news_agriculture",
        ["玉米", "养猪户", "果园", "小麦", "大棚蔬菜", "水稻", "种植大户", "土鸡"],
        [
            "亩产多少斤",
            "施肥的好时机",
            "病虫害怎么防治",
            "收购价又涨了",
            "丰收了却卖不出",
            "播种前要翻地",
        ],
    ),
    "116": (
        "news_game",
        [
            "王者荣耀",
            "吃鸡手游",
            "英雄联盟",
            "新皮肤",
            "打野玩家",
            "电竞战队",
            "这个副本",
            "最强辅助",
        ],
        ["上分技巧", "装备怎么搭配", "通关只要十分钟", "开黑太坑", "段位掉了", "技能被削弱"],
    ),
}
TNEWS_BEFORE = [
    "",
    "",
    "",
    "最新：",
    "网友热议，",
    "没想到，",
    "专家：",
    "今天，",
    "为什么说",
    "2019年",
]
TNEWS_AFTER = [
    "",
    "",
    "",
    "？",
    "！",
    "，你怎么看？",
    "，看完明白了",
    "，很多人不知道",
    "，这是真的吗？",
]


def make_tnews():
    """Short titles of 15 classes."""
    dice = Dice("tnews")
    codes = list(TNEWS)

    def row(number):
        code = codes[number % len(codes)]
        description, subjects, remarks = TNEWS[code]
        subject, remark = dice.pick(subjects), dice.pick(remarks)
        keywords = ""
        if dice.chance(0.7):
            keywords = f"{subject},{dice.other(subjects, subject)}"
        # In a quarter of the titles only one half tells the class.
        shape = dice.below(8)
        if shape == 0:
            body = subject + dice.pick(["到底怎么了", "上了热搜", "的消息来了"])
        elif shape == 1:
            body = dice.pick(["这件事：", "一张图告诉你：", "大家都在问："]) + remark.lstrip("的")
        else:
            body = subject + remark
        return {
            "label": code,
            "label_desc": description,
            "sentence": dice.pick(TNEWS_BEFORE) + body + dice.pick(TNEWS_AFTER),
            "keywords": keywords,
        }

    rows = generate(row, 900, lambda r: r["sentence"])
    return numbered(split(rows, dice, 210, 60, hidden=("label", "label_desc")))


# -------------------------------------------------------------------------------------- iflytek

# code: (description, what such an app offers)
IFLYTEK = {
    "1": (
        "地图导航",
        [
            "实时路况一目了然",
            "语音导航带你避开拥堵",
            "输入终点就能规划路线",
            "附近的加油站一搜就有",
            "卫星地图可以缩放",
        ],
    ),
    "5": (
        "快递物流",
        [
            "扫一扫单号查询包裹",
            "在线下单上门取件",
            "寄件价格透明",
            "签收以后马上提醒",
            "全国网点都能查到",
        ],
    ),
    "17": (
        "休闲益智",
        [
            "上百个关卡等你挑战",
            "消除相同颜色的方块",
            "动动脑筋解开谜题",
            "收集金币换道具",
            "画面可爱玩法简单",
        ],
    ),
    "34": (
        "新闻",
        [
            "每天推送热点头条",
            "记者现场报道国内外大事",
            "时事评论一应俱全",
            "要闻早知道",
            "社会民生随时看",
        ],
    ),
    "36": (
        "小说",
        [
            "海量小说免费阅读",
            "言情武侠应有尽有",
            "作者每天更新章节",
            "书架同步阅读进度",
            "夜间看书不伤眼",
        ],
    ),
    "48": (
        "音乐",
        ["歌曲无损播放", "歌词同步滚动", "收藏喜欢的歌单", "听歌识曲又快又准", "歌手新专辑抢先听"],
    ),
    "56": (
        "英语",
        [
            "每天背二十个单词",
            "真人发音纠正口语",
            "听力练习难度分级",
            "语法讲解通俗易懂",
            "四六级真题随时做",
        ],
    ),
    "68": (
        "民宿短租",
        [
            "房东直接出租特色房源",
            "入住前可以看房间照片",
            "日租月租都可以",
            "退房手续十分方便",
            "像住在自己家一样",
        ],
    ),
    "83": (
        "问诊挂号",
        [
            "在线预约医院专家号",
            "医生一对一解答病情",
            "检查报告随时查看",
            "不用排队就能挂号",
            "按症状推荐科室",
        ],
    ),
    "88": (
        "菜谱",
        [
            "家常菜做法分步讲解",
            "食材用量标得清清楚楚",
            "跟着视频学烘焙",
            "煲汤炒菜都能学会",
            "大厨教你调味",
        ],
    ),
    "91": (
        "运动健身",
        [
            "记录跑步的步数和距离",
            "教练定制训练计划",
            "瑜伽课程跟着练",
            "消耗的热量自动计算",
            "帮你练出好身材",
        ],
    ),
    "108": (
        "外卖",
        [
            "附近美食一键点餐",
            "骑手三十分钟送到家",
            "满减红包天天领",
            "商家菜单实时更新",
            "看得见配送员的位置",
        ],
    ),
}
APP_FIRST = ["小", "乐", "优", "随", "快", "云", "新", "爱"]
APP_SECOND = ["享", "行", "易", "点", "星", "盒", "多", "客"]
IFLYTEK_INTRO = [
    "{}是一款简单好用的手机应用",
    "{}是为年轻人打造的生活助手",
    "欢迎使用{}，让每一天更轻松",
    "{}由一支热爱生活的团队开发",
    "如果你正在寻找一款合适的软件，那就试试{}",
]
IFLYTEK_COMMON = [
    "界面清爽，没有多余的广告",
    "支持微信和手机号登录",
    "注册新用户就送会员",
    "有问题可以联系在线客服",
    "更新内容：修复已知问题，提升稳定性",
    "数据保存在云端，换手机也不会丢",
    "可以把内容分享给好友",
    "消息提醒可以自由设置",
    "安装包小，老手机也能流畅运行",
]


def make_iflytek():
    """Descriptions of apps: 12 of the 119 classes."""
    dice = Dice("iflytek")
    codes = list(IFLYTEK)

    def row(number):
        code = codes[number % len(codes)]
        description, features = IFLYTEK[code]
        name = dice.pick(APP_FIRST) + dice.pick(APP_SECOND)
        parts = dice.sample(features, dice.between(2, 3))
        parts += dice.sample(IFLYTEK_COMMON, dice.between(2, 4))
        # A feature of some other kind of app turns up now and then, as it does in real ones.
        if dice.chance(0.25):
            parts.append(dice.pick(IFLYTEK[dice.other(codes, code)][1]))
        parts = [dice.pick(IFLYTEK_INTRO).format(name), *dice.shuffled(parts)]
        sentence = "。".join(parts) + "。"
        return {"label": code, "label_des": description, "sentence": sentence}

    rows = generate(row, 640, lambda r: r["sentence"])
    return numbered(split(rows, dice, 200, 60, hidden=("label", "label_des")))


# ------------------------------------------------------------------------------- ocnli and cmnli

# A premise states one aspect, in one of two ways; a hypothesis is on one aspect: it
# says the same (entailment), the opposite (contradiction), or is on an aspect that the premise
# leaves open (neutral). Half of the neutral ones are on a detail that no premise ever gives, as
# in real data, where the hypothesis alone often gives something away.
#
# aspect: two values; a value: (wordings in a premise, wordings in a hypothesis)
OCNLI_ASPECTS = [
    [  # weather
        (["外面太阳很大", "天上没有一片云"], ["当时天气晴朗", "那是个晴天"]),
        (["雨下个不停", "街上的人都打着伞"], ["当时正在下雨", "那是个雨天"]),
    ],
    [  # mood
        (["{}笑得合不拢嘴", "{}高兴得唱起歌来"], ["{}心情很好", "{}感到快乐"]),
        (["{}眼泪掉了下来", "{}伤心得说不出话"], ["{}心里难过", "{}感到悲伤"]),
    ],
    [  # food
        (["{}只点了一条清蒸鱼", "{}只要了一碗鱼汤"], ["{}吃的是鱼", "{}那顿饭有鱼"]),
        (["{}只点了一份牛肉", "{}只要了一碗牛肉面"], ["{}吃的是牛肉", "{}那顿饭有牛肉"]),
    ],
]
OCNLI_DETAILS = ["{}明年打算出国", "{}有两个兄弟", "{}住在三楼", "{}小时候学过画画"]
OCNLI_PEOPLE = ["小李", "老王", "张姐", "赵叔", "周婶", "小陈", "老吴", "孙哥", "郑姨", "小何"]
OCNLI_LEADS = ["那天{}来了，", "后来{}来了，"]
CMNLI_ASPECTS = [
    [  # staff
        (["{}新招了上百名工人", "{}扩大了员工队伍"], ["{}的人手增加了", "{}的职工变多"]),
        (["{}一半的员工已经离开", "{}裁员非常严重"], ["{}缺少人手", "{}的职工减少"]),
    ],
    [  # prices
        (["{}收费标准提高了", "{}连续上调票价"], ["{}涨价了", "{}越来越贵"]),
        (["{}全场打五折", "{}低价出售商品"], ["{}降价了", "{}比以前便宜"]),
    ],
    [  # freight
        (["{}货物装船出海", "{}产品走水路"], ["{}选择海运", "{}用轮船送货"]),
        (["{}货物装上飞机", "{}产品走航空线"], ["{}选择空运", "{}靠飞机送货"]),
    ],
]
CMNLI_DETAILS = ["{}的大楼有十层", "{}请过一位外国专家", "{}的历史很长", "{}的食堂很出名"]
CMNLI_SUBJECTS = ["这家工厂", "那家企业", "这家饭店", "那家商场", "这家公司", "那家农场"]
CMNLI_LEADS = ["据说{}", "去年{}", "近来{}"]
NLI_LABELS = ["entailment", "neutral", "contradiction"]
GENRES = ["lit", "phone", "news", "gov", "tv"]


def nli_pair(dice, label, aspects, details, people, leads):
    """A premise and a hypothesis that stands in relation `label` to it."""
    aspect = dice.pick(aspects)
    stated = dice.pick(aspect)
    if label == "entailment":
        wordings = stated[1]
    elif label == "contradiction":
        wordings = dice.other(aspect, stated)[1]
    elif dice.chance(0.5):
        wordings = dice.pick(dice.other(aspects, aspect))[1]
    else:
        wordings = details
    who = dice.pick(people)
    # The lead names who it is about, so the statement after it need not say it again.
    premise = dice.pick(leads).format(who) + dice.pick(stated[0]).format("")
    return premise + dice.pick(["", "。"]), dice.pick(wordings).format(who) + dice.pick(["", "。"])


def make_ocnli():
    """Premise and hypothesis on everyday life; the label "-" stands for no agreement."""
    dice = Dice("ocnli")

    def five_votes(label):
        """Labels of five annotators, of which `label` is the majority, or without a majority."""
        if label == "-":
            return dice.shuffled(NLI_LABELS[:2] * 2 + NLI_LABELS[2:])
        votes = [label] * dice.between(3, 5)
        while len(votes) < 5:
            votes.append(dice.other(NLI_LABELS, label))
        return dice.shuffled(votes)

    def row(number):
        label = NLI_LABELS[number % 3]
        one, two = nli_pair(dice, label, OCNLI_ASPECTS, OCNLI_DETAILS, OCNLI_PEOPLE, OCNLI_LEADS)
        return {
            "level": dice.pick(["easy", "medium", "hard"]),
            "sentence1": one,
            "sentence2": two,
            "label": "-" if number % 100 == 50 else label,
            **{f"label{i}": None for i in range(5)},
            "genre": dice.pick(GENRES),
            "prem_id": "",
        }

    rows = generate(row, 990, lambda r: r["sentence1"] + r["sentence2"])
    for number, one in enumerate(rows):
        one["prem_id"] = f"{one['genre']}_{number}"
    parts = split(rows, dice, 200, 60)
    for one in parts["dev"]:
        one.update({f"label{i}": vote for i, vote in enumerate(five_votes(one["label"]))})
    parts["test"] = [{k: r[k] for k in ("sentence1", "sentence2")} for r in parts["test"]]
    return numbered(parts)


def make_cmnli():
    """Premise and hypothesis on companies, a few of them labelled "-" as well."""
    dice = Dice("cmnli")

    def row(number):
        label = NLI_LABELS[number % 3]
        one, two = nli_pair(dice, label, CMNLI_ASPECTS, CMNLI_DETAILS, CMNLI_SUBJECTS, CMNLI_LEADS)
        return {
            "sentence1": one,
            "sentence2": two,
            "label": "-" if number % 150 == 60 else label,
        }

    rows = generate(row, 1260, lambda r: r["sentence1"] + r["sentence2"])
    parts = split(rows, dice, 200, 60)
    parts["test"] = numbered({"test": parts["test"]})["test"]
    return parts


# ---------------------------------------------------------------------------------- cluewsc2020

# The pronoun stands for the noun or for something (or somebody) else in the text that is not
# named; what is said of it fits one kind of noun only.
#
# kind: (pronoun, nouns, what is said of this kind)
WSC_KINDS = [
    ("他", ["老师傅", "小伙子", "邮递员", "售货员"], ["累得直喘气", "笑了起来", "正在打电话"]),
    ("它", ["苹果", "西瓜", "桃子", "橘子"], ["又甜又脆", "熟透了", "吃起来汁水很多"]),
    ("它", ["手机", "电脑", "相机", "收音机"], ["没电了", "充好电了", "怎么也开不了机"]),
    ("它", ["小猫", "小狗", "兔子", "山羊"], ["饿得直叫", "竖起了耳朵", "摇着尾巴"]),
]
WSC_WHO = ["小明", "奶奶", "李姐", "我们", "爸爸", "哥哥", "老张", "阿姨"]
WSC_OTHERS = {"他": "别的人", "它": "别的东西"}
WSC_FORWARD = [
    "{who}看见{a}和{b}，{p}{x}。",
    "{who}找到{a}和{b}，{p}{x}。",
    "{who}带来{a}和{b}，{p}{x}。",
    "{who}提到{a}和{b}，{p}{x}。",
]
WSC_BACKWARD = ["听说{p}{x}，{who}来看{a}和{b}。", "因为{p}{x}，{who}没管{a}和{b}。"]
WSC_AFTER = ["", "", "天已经黑了。", "大家都知道。"]


def fill(template, **values):
    """Fill the template; give the text and where each value starts."""
    text, starts = "", {}
    for piece in re.split(r"(\{\w+\})", template):
        if piece.startswith("{"):
            name = piece[1:-1]
            starts[name] = len(text)
            piece = values[name]
        text += piece
    return text, starts


def make_cluewsc2020():
    """Does the pronoun stand for the noun? That depends on what is said of it."""
    dice = Dice("cluewsc2020")

    def row(number):
        kind = meant = dice.pick(WSC_KINDS)
        label = number // 5 % 2 == 0
        if not label:
            meant = dice.other(WSC_KINDS, kind)
        pronoun, _, remarks = meant
        noun = dice.pick(kind[1])
        text, starts = fill(
            dice.pick(WSC_BACKWARD if number % 5 == 4 else WSC_FORWARD) + dice.pick(WSC_AFTER),
            who=dice.pick(WSC_WHO),
            a=noun,
            b=WSC_OTHERS[pronoun],
            p=pronoun,
            x=dice.pick(remarks),
        )
        return {
            "target": {
                "span2_index": starts["p"],
                "span1_index": starts["a"],
                "span1_text": noun,
                "span2_text": pronoun,
            },
            "idx": number,
            "label": "true" if label else "false",
            "text": text,
        }

    rows = generate(row, 1060, lambda r: r["text"])
    parts = numbered(split(rows, dice, 200, 60), "idx")
    for rows in parts.values():
        for one in rows:
            span = one["target"]
            for name in ("span1", "span2"):
                start = span[name + "_index"]
                assert one["text"].startswith(span[name + "_text"], start)
    return parts


# ------------------------------------------------------------------------------------------ csl

# field: (keywords, methods, findings)
CSL_FIELDS = [
    (  # medicine
        ["高血压", "糖尿病", "冠心病", "肺炎", "骨折", "胃癌"],
        ["对住院患者进行随访", "采用随机对照试验分组治疗"],
        ["治疗组的症状明显改善", "血清指标显著下降"],
    ),
    (  # computing
        ["神经网络", "数据挖掘", "图像识别", "聚类算法", "信息检索"],
        ["在公开数据集上训练模型", "提出了一种改进的优化算法"],
        ["准确率高于已有方法", "计算复杂度明显降低"],
    ),
    (  # agronomy
        ["水稻", "小麦", "施肥", "土壤肥力", "玉米", "灌溉"],
        ["通过三年田间试验", "设置了四个氮肥水平"],
        ["籽粒产量显著提高", "根系生长更加旺盛"],
    ),
]
CSL_OPENING = ["为了研究{0}与{1}的关系", "针对{0}和{1}的问题", "以{0}、{1}为对象"]
CSL_MIDDLE = ["重点讨论了{2}", "并考察了{2}", "同时结合{2}"]
CSL_CLOSING = ["", "该结论可供参考。", "这一成果有应用价值。"]


def make_csl():
    """Abstracts with keywords: do all of them belong to the abstract?"""
    dice = Dice("csl")
    fields = range(len(CSL_FIELDS))

    def row(number):
        field = dice.pick(fields)
        own, methods, findings = CSL_FIELDS[field]
        about = dice.sample(own, 3)
        abstract = (
            dice.pick(CSL_OPENING).format(*about)
            + f"，{dice.pick(methods)}，"
            + dice.pick(CSL_MIDDLE).format(*about)
            + f"。结果表明，{'，'.join(findings)}。"
            + dice.pick(CSL_CLOSING)
        )
        keywords = list(about)
        real = number % 2 == 0
        if not real:
            # Most or all of the keywords come from one other field.
            foreign = CSL_FIELDS[dice.other(fields, field)][0]
            replaced = dice.between(2, 3)
            keywords[:replaced] = dice.sample(foreign, replaced)
        return {
            "id": number,
            "abst": abstract,
            "keyword": dice.shuffled(keywords),
            "label": "1" if real else "0",
        }

    rows = generate(row, 1010, lambda r: r["abst"])
    return numbered(split(rows, dice, 200, 60))


# ------------------------------------------------------------------------------------- msra_ner

NER_TEMPLATES = [
    "记者{P}从{L}报道，{O}今天宣布了新的计划。",
    "{P}出生于{L}，后来在{O}工作。",
    "据{O}介绍，{P}将于{D}访问{L}。",
    "{D}，{O}在{L}成立，由{P}担任主任。",
    "本报{L}{D}电　记者{P}报道：会议圆满结束。",
    "{L}和{L}之间的公路已经通车，全长{N}公里。",
    "来自{L}的{P}说，这里的变化真大！",
    "{O}总经理{P}说，iPhone的销量增长了{N}%。",
    "{P}、{P}等{N}名队员参加了在{L}举行的比赛。",
    "昨天，{P}在{O}做了一场关于GDP的报告。",
    "{N}年前，这里还是一片荒地，如今却变了模样。",
    "他们用WiFi上网，用CPU和DVD的人越来越少。",
    "{E}球星{P}抵达{L}，受到{N}名球迷欢迎。",
    "{E}的代表{P}指出，贸易规则需要完善。",
    "编者按　{L}今年粮食丰收，农民收入提高。",
    "{O}与{O}签订了合作协议，总额{N}万元。",
    "在{L}，人们常常谈起老人{P}的故事。",
    "校长{P}说，{O}的学生已经超过{N}人。",
    "雨后的空气十分清新，大家都很高兴。",
    "从{L}出发，坐车{N}分钟就到了{L}。",
]
NER_ENGLISH_ORGS = ["NBA", "WTO", "IBM", "CCTV", "UNESCO"]
NER_KNOWN_PLACES = ["北京", "上海", "中国", "美国", "日本", "法国", "广东", "四川"]
NER_ORG_ENDS = [
    "大学",
    "银行",
    "电视台",
    "汽车公司",
    "科技公司",
    "人民医院",
    "研究所",
    "纺织厂",
    "足球队",
]
NER_BRANDS = ["华兴", "东方", "长城", "宏达", "金星", "红光", "振华", "天成"]


def ner_entity(dice, kind):
    if kind == "PER":
        return person(dice)
    if kind == "LOC":
        if dice.chance(0.25):
            return dice.pick(NER_KNOWN_PLACES)
        return place(dice, "市县镇村省区")
    owner = dice.pick(NER_BRANDS) if dice.chance(0.5) else place(dice, "市县省")
    return owner + dice.pick(NER_ORG_ENDS)


def make_msra_ner():
    """Token sequences with names of people, places and organisations.

    As in real text, a token is a character, a whole English word or number, or a full-width space
    (which is no wordpiece at all).
    """
    dice = Dice("msra_ner")
    kinds = {"{P}": "PER", "{L}": "LOC", "{O}": "ORG", "{E}": "ORG"}

    def row(_):
        tokens, tags = [], []
        for piece in re.split(r"(\{\w\})", dice.pick(NER_TEMPLATES)):
            kind = kinds.get(piece)
            if piece == "{E}":
                piece = dice.pick(NER_ENGLISH_ORGS)
            elif kind:
                piece = ner_entity(dice, kind)
            elif piece == "{N}":
                piece = str(dice.between(2, 999))
            elif piece == "{D}":
                month, day = dice.between(1, 12), dice.between(1, 28)
                year = f"{dice.between(1998, 2019)}年" if dice.chance(0.5) else ""
                piece = f"{year}{month}月{day}日"
            new = re.findall(r"[A-Za-z]+|[0-9]+|.", piece)
            tokens += new
            for position in range(len(new)):
                tags.append(("I-" if position else "B-") + kind if kind else "O")
        return tokens, tags

    rows = generate(row, 1100, lambda r: "".join(r[0]))
    rows = dice.shuffled(rows)
    return {"train": rows[200:], "test": rows[:200]}


# ------------------------------------------------------------------------------------- cmrc2018

DISHES = [a + b for a in ["红烧", "清炖", "糖醋", "香煎"] for b in ["鲤鱼", "排骨", "豆腐", "茄子"]]
JOBS = ["外科医生", "小说家", "建筑师", "木匠", "钢琴家", "植物学家", "船长", "裁缝"]
TREES = ["银杏", "香樟", "雪松", "梧桐", "玉兰", "白杨"]
MAJORS = ["地质学", "考古学", "园林学", "天文学", "海洋学", "会计学"]


def year(low, high):
    return lambda dice: f"{dice.between(low, high)}年"


def amount(low, high, unit):
    return lambda dice: f"{dice.between(low, high)}{unit}"


def one_of(words):
    return lambda dice: dice.pick(words)


# Where a name starts and ends can be told from its characters, since the lists have none in common:
# to find the borders of a span from the context alone takes a larger model, or pretraining.
COMPOUND_SURNAMES = ["欧阳", "司马", "诸葛", "上官"]
NAME_MIDDLE = GIVEN[::2]
NAME_END = GIVEN[1::2]


def full_name(dice):
    return dice.pick(SURNAMES) + dice.pick(NAME_MIDDLE) + dice.pick(NAME_END)


def hero_name(dice):
    """The person whom a text is about; no one else has a surname of two characters."""
    return dice.pick(COMPOUND_SURNAMES) + dice.pick(NAME_MIDDLE)


def academy(dice):
    return dice.pick(PLACE_FIRST) + dice.pick(PLACE_SECOND) + dice.pick(["大学", "学院"])


# kind: (how its name is made, word for it in the text, facts)
# A fact: (makes the value, sentences of a context, questions). A context holds most facts of its
# kind, so only the question says which of the values is meant.
CMRC_KINDS = {
    "人物": (
        hero_name,
        "他",
        [
            (
                year(1920, 1959),
                ["{s}出生于{v}", "{s}在{v}出生"],
                ["{t}是哪一年出生的？", "{t}出生于什么时候？"],
            ),
            (
                amount(155, 189, "厘米"),
                ["{s}的身高是{v}", "{s}身高{v}"],
                ["{t}的身高是多少？", "{t}有多高？"],
            ),
            (
                lambda dice: place(dice, "县镇村"),
                ["{s}的老家在{v}", "{s}的故乡是{v}"],
                ["{t}的老家在哪里？", "{t}的故乡是什么地方？"],
            ),
            (
                one_of(JOBS),
                ["{s}的职业是{v}", "{s}是一名出色的{v}"],
                ["{t}的职业是什么？", "{t}从事什么职业？"],
            ),
            (
                full_name,
                ["{s}的老师是{v}", "{s}拜{v}为老师"],
                ["{t}的老师是谁？", "谁是{t}的老师？"],
            ),
            (
                one_of(DISHES),
                ["{s}最爱吃的菜是{v}", "{s}最爱吃{v}"],
                ["{t}最爱吃什么？", "{t}爱吃哪一道菜？"],
            ),
            (
                academy,
                ["{s}毕业于{v}", "{s}从{v}毕业"],
                ["{t}毕业于哪所学校？", "{t}是从哪里毕业的？"],
            ),
        ],
    ),
    "大学": (
        academy,
        "学校",
        [
            (
                year(1901, 1959),
                ["{s}始建于{v}", "{s}在{v}建校"],
                ["{t}是哪一年建校的？", "{t}始建于什么时候？"],
            ),
            (
                full_name,
                ["{s}现任校长是{v}", "{s}的校长叫{v}"],
                ["{t}的校长是谁？", "谁是{t}的现任校长？"],
            ),
            (
                amount(3000, 9900, "人"),
                ["{s}的在校学生有{v}", "{s}共有学生{v}"],
                ["{t}有多少学生？", "{t}的在校学生是多少？"],
            ),
            (
                amount(20, 390, "万册"),
                ["{s}的藏书有{v}", "{s}图书馆藏书{v}"],
                ["{t}的藏书有多少？", "{t}图书馆有多少藏书？"],
            ),
            (
                one_of(TREES),
                ["{s}的校树是{v}", "{s}把{v}定为校树"],
                ["{t}的校树是什么？", "{t}把什么定为校树？"],
            ),
            (
                one_of(MAJORS),
                ["{s}最有名的专业是{v}", "{s}的王牌专业是{v}"],
                ["{t}最有名的专业是什么？", "{t}的王牌专业是哪个？"],
            ),
        ],
    ),
}
CMRC_FILLERS = [
    "这些都有书面记录",
    "大家对此印象深刻",
    "当地的报纸也有过介绍",
    "这段历史常常被提起",
    "后来的变化就更大了",
    "远方的游客慕名而来",
    "细心的读者也许早就知道",
    "旧照片上还能看到当年的样子",
    "相关的资料保存得很完整",
]
CMRC_LONG_WHEN = ["春天", "夏天", "秋天", "冬天", "早晨", "傍晚", "逢年过节", "雨后"]
CMRC_LONG_WHO = ["老奶奶", "孩子们", "过路的游客", "附近的邻居", "小伙子"]
CMRC_LONG_WHAT = [
    "坐在一起聊天",
    "沿着小路散步",
    "说起从前的日子",
    "在树下唱歌",
    "讲各种各样的笑话",
]


def cmrc_alternatives(dice, value, start):
    """Three annotators' answers: mostly the same span, sometimes one without the unit."""
    answers = [{"text": value, "answer_start": start}] * dice.between(1, 3)
    number = re.match(r"\d+", value)
    if number and len(answers) > 1 and dice.chance(0.5):
        answers[-1] = {"text": number.group(), "answer_start": start}
    return answers


def make_cmrc2018():
    """Texts of five or six facts, in any order, with questions on some of the facts."""
    dice = Dice("cmrc2018")
    kinds = list(CMRC_KINDS)

    def article(split_name, number):
        make_title, pronoun, all_facts = CMRC_KINDS[kinds[number % len(kinds)]]
        title = make_title(dice)
        facts = dice.sample(all_facts, dice.between(5, 6))
        long = number % 25 == 7
        # A sentence is (text, the fact that it states or None, value, where the value starts).
        sentences = []
        for position, (make_value, wordings, questions) in enumerate(facts):
            subject = title if position == 0 or dice.chance(0.2) else pronoun
            value = make_value(dice)
            text, starts = fill(dice.pick(wordings), s=subject, v=value)
            sentences.append((text, questions, value, starts["v"]))
        fillers = dice.sample(CMRC_FILLERS, dice.between(2, 3))
        if long:
            for _ in range(dice.between(36, 38)):
                words = (CMRC_LONG_WHEN, CMRC_LONG_WHO, CMRC_LONG_WHAT)
                fillers.append("".join(dice.pick(w) for w in words))
        for text in fillers:
            # Anywhere but in front: the first sentence gives the name.
            sentences.insert(dice.between(1, len(sentences)), (text, None, None, 0))
        context, found = "", []
        for text, questions, value, start in sentences:
            if questions:
                found.append((questions, value, len(context) + start))
            context += text + ("。" if dice.chance(0.7) else "，")
        context = context[:-1] + "。"
        qas = []
        name = f"{split_name.upper()}_{number}"
        for questions, value, start in dice.sample(found, dice.between(3, 4)):
            assert context.startswith(value, start)
            answers = [{"text": value, "answer_start": start}]
            if split_name == "dev":
                answers = cmrc_alternatives(dice, value, start)
            elif split_name == "test":
                answers = []
            question = dice.pick(questions).replace("{t}", title)
            qas.append({"question": question, "id": f"{name}_QUERY_{len(qas)}", "answers": answers})
        paragraph = {"id": name, "context": context, "qas": qas}
        return {"paragraphs": [paragraph], "id": name, "title": title}

    return {
        name: {"version": "v1.0", "data": [article(name, i) for i in range(count)]}
        for name, count in (("train", 330), ("dev", 60), ("test", 20))
    }


# ---------------------------------------------------------------------------------- vocabulary

# In the vocabulary as whole pieces; other English words, and every number, are several pieces.
ENGLISH_PIECES = ["nba", "gdp", "suv", "wifi", "cpu", "phone", "##phone"]
PUNCTUATION = "，、。！？：；“”‘’（）《》【】…—·～,.!?:;'\"()[]<>{}/\\+-*=%&#@_^|~$￥"
COMMON_CHARACTERS = (
    "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会"
    "家可下而过天去能对小多然于心学么之都好看起发当没成只如事把还用第样道想作种开美总从"
    "无情己面最女但现前些所同日手又行意动方期它头经长儿回位分爱老因很给名法间斯知世什两"
    "次使身者被高已亲其进此话常与活正感见明问力理尔点文几定本公特做外孩相西果走将月十实"
    "向声车全信重三机工物气每并别真打太新比才便夫再书部水像眼等体却加电主界门利海受听表"
    "德少克代员许先口由死安写性马光白或住难望教命花结乐色更拉东神记处让母父应直字场平报"
    "友关放至张认接告入笑内英军候民岁往何度山觉路带万男边风解叫任金快原吃妈变通师立象数"
    "四失满战远格士音轻目条呢病始达深完今提求清王化空业思切怎非找片罗钱语元喜曾离飞科言"
    "干流欢约各即指合反题必该论交终林请医晚制球决传画保读运及则房早院量苦火布品近坐产答"
    "星精视五连司巴奇管类未朋且婚台夜青北队久乎越观落尽形影红爸百令周吧识步希亚术留市半"
    "热送兴造谈容极随演收首根讲整式取照办强石古华谢哪六七八九零二午您吗啊呀哦嗯哈"
    "般约支持阿单据答护尼济推油响兵静陆县铁冲激洋皇沿印血宝雷压鲁层普追帝朝材雨掌船唱"
    "灯卫野云威药汽钟乱忽笔亮敌枪双差愿肯倒味香兄环呼健景宣顶黄句赶急睡脸弟坚姐抓止危"
    "险伤哭笔脚抱假忘怕秀丝雪鸟鱼羊牛猪虎龙蛇鼠猴鸡狗梦甜咸辣酸饭碗茶酒糖盐米面菜瓜豆"
    "春夏秋冬衣裤鞋帽床桌椅窗墙屋楼梯厨厅街桥塔湖泊岛岸滩沙浪潮雾霜冰雷闪晴阴暖凉冷烫"
    "红橙绿蓝紫灰粉银铜钢玻璃纸墨刀剑弓盾矛棋牌琴鼓笛歌舞戏剧诗词赋曲谱册页章节段句逗"
    "爷奶叔姑舅嫂侄孙媳婿邻居客宾徒匠农渔猎牧商贩兵警察官吏帅仆僧尼巫仙鬼怪魔妖佛祖宗"
    "跑跳蹲爬坐站躺睡醒哭笑骂喊吵闹吻抱推拉拖拽扔捡拾挖埋砍切割剪缝补洗擦扫刷煮炒炸烤"
    "聪慧勤懒勇怯善恶美丑肥瘦胖矮粗细宽窄厚薄浅软硬干湿脏净贵贱贫富忙闲快慢早晚迟准错"
)


def make_vocab(texts):
    """The entries of vocab.txt for a lower-casing wordpiece tokenizer."""
    used = sorted({c for text in texts for c in text.lower() if not c.isspace()})
    plain = list("abcdefghijklmnopqrstuvwxyz0123456789")
    entries = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    entries += [c for c in used if c.isprintable()]
    entries += plain + [f"##{c}" for c in plain]
    entries += list(PUNCTUATION) + ENGLISH_PIECES + sorted(COMMON_CHARACTERS)
    return list(dict.fromkeys(entries))


# ----------------------------------------------------------------------------------------- main

DATASETS = {
    "afqmc": make_afqmc,
    "tnews": make_tnews,
    "iflytek": make_iflytek,
    "ocnli": make_ocnli,
    "cmnli": make_cmnli,
    "cluewsc2020": make_cluewsc2020,
    "csl": make_csl,
    "msra_ner": make_msra_ner,
    "cmrc2018": make_cmrc2018,
}


def render(dataset, part):
    """The text of one data file."""
    if dataset == "cmrc2018":
        return json.dumps(part, ensure_ascii=False) + "\n"
    if dataset == "msra_ner":
        return "".join("\x02".join(tokens) + "\t" + "\x02".join(tags) + "\n" for tokens, tags in part)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)


def write(path, text):
    """Write a file whole or not at all: a stopped run leaves no half-written data behind."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    scratch = f"{path}.{os.getpid()}.tmp"
    try:
        with open(scratch, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(scratch, path)
    finally:
        if os.path.exists(scratch):
            os.remove(scratch)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Write the sample data and its vocabulary.")
    parser.add_argument("--output_dir", default=os.path.join(here, "data"))
    output_dir = os.path.abspath(parser.parse_args().output_dir)

    texts = []
    for dataset, make in DATASETS.items():
        suffix = "tsv" if dataset == "msra_ner" else "json"
        for name, part in make().items():
            text = render(dataset, part)
            texts.append(text)
            write(os.path.join(output_dir, dataset, f"{name}.{suffix}"), text)
    vocab = make_vocab(texts)
    write(os.path.join(os.path.dirname(output_dir), "model", "vocab.txt"), "\n".join(vocab) + "\n")


if __name__ == "__main__":
    main()
