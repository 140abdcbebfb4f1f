"""Chinese in characters: templates of news and chat, names invented from characters."""

from knn_ner.synthetic.grammar import Language

# How names are invented. The characters overlap between the kinds of names, as they do in life.
CHARACTERS = {
    "surname": tuple("赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦许何吕施张孔曹严华金魏陶姜林白江安"),
    "given_character": tuple(
        "文明华建国伟芳娜敏静丽强磊军洋勇艳杰娟涛超秀霞平刚桂英云山海江星月安宁"
    ),
    "place_character": tuple(
        "云山海江河林石龙凤安宁平东西南北青白金沙溪桥岭泉阳阴川湖原古新永长明"
    ),
    "brand_character": tuple("飞讯达科星光华云威力美乐佳宝金龙凤海天宇联创新永明通"),
    "short_place": tuple("沂渌汾澜岚峪"),
    "digit": tuple("23456789"),
    "letter": tuple("AKMSTXZ"),
    "model": ("$digit", "$letter+$digit", "$digit+00", "$letter+$digit+0", "Pro", "mini"),
}

WORDS = {
    "job": "歌手 木匠 门将 律师 画家 护士 飞行员 诗人 农民 法官 老师 队长 市长 记者 演员".split(),
    "company_noun": "银行 出版社 俱乐部 航空公司 工会 船厂 报社 保险公司 博物馆 超市".split(),
    "location_noun": "村子 港口 小岛 山谷 郊区 省 湖 小镇 首都 海岸".split(),
    "product_noun": "手机 自行车 水壶 相机 汽车 肥皂 电脑 手表 台灯 饮料".split(),
    "work_noun": "小说 电影 歌 歌剧 诗 专辑 电视剧 话剧 纪录片".split(),
    "shared_noun": "对手 巨头 新人 传奇 经典 老朋友".split(),
    "title": "总统 部长 教授 医生 经理 主任".split(),
    "adjective": "老 新 有名的 便宜的 本地的 年轻的 奇怪的 热闹的 安静的 破旧的".split(),
    "noun": "价格 天气 报告 市场 预算 比赛 合同 公路 桥 债务 花园 大火 奖金 选举 传闻 冬天 月光 长夜".split(),
    "people_noun": "工人 游客 记者们 球迷 邻居 选民 评论家 大家 网友".split(),
    "intransitive": "下跌了 上涨了 变了 回来了 消失了 好转了 失败了 停了 火了".split(),
    "transitive": "批评了 称赞了 找到了 忘记了 支持 错过了 改变了 怀念 关注".split(),
    "say": "说 表示 宣布 否认 认为 透露 强调".split(),
    "number": "2 3 5 8 12 30 45 两 三 十 一百".split(),
    "adverb": "又 昨天 今天 悄悄 终于 刚刚 已经".split(),
    "mood": "！ 。 。 。 ？ ~ [笑] 哈哈 。。。".split(),
}

TITLE_WORDS = {
    "title_noun": "冬天 月光 长夜 花园 大火 河流 影子 桥 春风 故乡 来信 列车".split(),
    "title_adjective": "金色的 最后的 安静的 破碎的 年轻的 奇怪的".split(),
}

PHRASES = {
    "when": ("昨天", "今天", "上周", "$number 月", "$number 年前", "比赛 之后", "选举 前", "周末"),
    "thing": ("$noun", "$adjective $noun", "这个 $noun", "$number 个 $people_noun", "$people_noun"),
    "fact": (
        "$thing $intransitive",
        "$thing $transitive $thing",
        "@LOC 的 $noun $intransitive",
        "@ORG 要 招 $number 个 人",
        "@PER 不会 回来",
        "$when $thing $intransitive",
    ),
    "someone": ("她", "他", "我", "我 邻居", "$job", "$people_noun", "@PER", "@PER"),
    "anything": ("@PER/ORG/LOC", "@PER/ORG", "@ORG/LOC", "@PER/WORK", "@ORG/PROD", "@PROD/WORK"),
}

SENTENCES = {
    "sentence": (
        "$clause 。",
        "$clause 。",
        "$when ， $clause 。",
        "$clause ， 但是 $fact 。",
        "$clause $mood",
        "$say_so",
        "$list",
        "$chat",
        "$fact 。",
    ),
    "say_so": (
        "“ $fact ” ， @PER $say 。",
        "@PER $say ： “ $fact ” 。",
        "$title @PER $say ， $fact 。",
        "@PER $title $say ， $fact 。",
        "@ORG $when $say ， $fact 。",
        "据 @PER/ORG/WORK 报道 ， $fact 。",
    ),
    "list": (
        "首发 名单 ： @PER 、 @PER 、 @PER 。",
        "出席 ： @PER @PER @PER",
        "@LOC @LOC 两地 $intransitive 。",
        "@ORG @ORG $number 比 $number",
        "正在 上映 ： @WORK @WORK",
        "有货 ： @PROD @PROD",
        "@LOC @ORG 招聘 $job",
    ),
    "chat": (
        "@PER 你 在 @LOC 吗 ？",
        "我 爱 $anything $mood",
        "$anything 太 好 了 $mood",
        "转发 @PER ： $fact $mood",
        "在 @LOC 用 @PROD 听 @WORK $mood",
        "好想 去 @LOC $mood",
        "求 一个 @PROD $mood",
        "$fact $mood",
    ),
    "clause": (
        "$people",
        "$people",
        "$organisations",
        "$places",
        "$products",
        "$works",
        "$open",
        "$open",
    ),
    "people": (
        "$job @PER $transitive $thing",
        "@PER 出生 在 @LOC",
        "@PER 加入 @ORG",
        "@PER 离开 @ORG 去了 @ORG",
        "@PER 和 @PER 在 @LOC 结婚",
        "@PER 在 @LOC 写下 @WORK",
        "@PER 的 父亲 $adverb $intransitive",
        "$title @PER 会见 @PER",
        "@PER 为 @ORG 进了 $number 个 球",
    ),
    "organisations": (
        "@ORG 收购 @ORG",
        "@ORG $number 比 $number 战胜 @ORG",
        "@ORG 将 在 @LOC 开业",
        "@ORG 股价 $intransitive",
        "@ORG 起诉 @PER",
        "$someone 在 @ORG 工作",
        "$company_noun @ORG $transitive $thing",
        "@LOC 的 @ORG $intransitive",
    ),
    "places": (
        "从 @LOC 到 @LOC 的 公路 $intransitive",
        "$someone 搬到 @LOC",
        "@LOC 下雨 了",
        "$someone 从 @LOC 飞往 @LOC",
        "$location_noun @LOC $intransitive",
        "@LOC 选民 $transitive @PER",
        "$thing 在 @LOC $intransitive",
    ),
    "products": (
        "@ORG 发布 @PROD",
        "$someone 买了 一台 @PROD",
        "新 @PROD 卖 $number 元",
        "@PROD 的 电池 坏了",
        "@PROD 比 @PROD 好用",
        "@ORG 的 @PROD $intransitive",
    ),
    "works": (
        "@PER 导演 的 @WORK $intransitive",
        "$someone 在 读 @WORK",
        "@PER 的 @WORK 获奖 了",
        "$work_noun 《 @WORK 》 $intransitive",
        "$work_noun @WORK $intransitive",
        "@PER 演唱 《 @WORK 》",
        "评论家 称赞 @WORK",
    ),
    "open": (
        "$anything 是 $shared_noun",
        "$someone $transitive $anything",
        "大家 都 在 谈 $anything",
        "$anything $adverb 上 新闻 了",
        "$anything $transitive $anything",
        "没有人 $transitive $anything",
    ),
}

NAMES = {
    "PER": (
        "$surname+$given_character",
        "$surname+$given_character+$given_character",
        "$surname+$given_character+$given_character",
        "老+$surname",
        "小+$surname",
        "$surname+$job_title",
        "$brand_character+$brand_character",
        "$brand_character+$brand_character+$brand_character",
    ),
    "ORG": (
        "$brand",
        "$brand",
        "$place",
        "$brand+$company_ending",
        "$place+$company_ending",
        "$place+$club",
        "$place+大学",
        "$brand+$company_noun",
        "$letter+$letter+$company_ending",
    ),
    "LOC": (
        "$place",
        "$place",
        "$place",
        "$place+$site_ending",
        "$place+$site_ending",
        "$short_place",
        "$place+$site_ending+$place+$site_ending",
        "$side+$place",
    ),
    "PROD": ("$brand+$model", "$brand+$model", "$brand", "$brand+$title_noun", "$letter+$digit"),
    "WORK": (
        "$title_noun",
        "$title_adjective+$title_noun",
        "$title_noun+与+$title_noun",
        "$place+的+$title_noun",
        "$surname+$given_character+$given_character",
        "$place+$title_noun",
    ),
}

NAME_WORDS = {
    "job_title": ("总", "哥", "姐", "导"),
    "company_ending": "集团 科技 食品 汽车 文化 公司".split(),
    "club": "队 联队 竞技".split(),
    "site_ending": "市 县 镇 山 湖 村 区 路 桥".split(),
    "side": tuple("东西南北"),
}

CHINESE = Language(
    rules=CHARACTERS | WORDS | TITLE_WORDS | PHRASES | SENTENCES | NAME_WORDS,
    invented={
        "place": (300, "$place_character+$place_character"),
        "brand": (200, "$brand_character+$brand_character"),
    },
    names=NAMES,
    ambiguous=(
        (60, "$place", ("LOC", "ORG")),
        (60, "$brand", ("ORG", "PROD")),
        (30, "$surname+$given_character+$given_character", ("PER", "WORK")),
        (20, "$surname+$given_character", ("PER", "LOC")),
    ),
    tokens=tuple,  # each character is a token
    capitalised=False,
    file_name="char.bmes",
)
