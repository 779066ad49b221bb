"""The hundred commonest Japanese surnames: a name is masked only where one of them stands in a name's place."""

_TEXT = """佐藤 鈴木 高橋 田中 伊藤 渡辺 渡邊 山本 中村 小林 加藤 吉田 山田 佐々木 山口 松本 井上 木村 斎藤 斉藤 清水 山崎 阿部
    池田 橋本 山下 森 石川 前田 小川 藤田 岡田 後藤 長谷川 石井 村上 近藤 坂本 遠藤 青木 藤井 西村 福田 太田 三浦 岡本 松田
    中島 中川 原田 小野 田村 竹内 金子 和田 中山 石田 上田 森田 柴田 酒井 原 横山 宮崎 宮本 内田 高木 谷口 安藤 丸山 今井 大野
    藤本 武田 菅原 村田 新井 小島 平野 河野 桜井 野口 松尾 千葉 菊地 佐野 大塚 久保 野村 松井 渡部 菊池 木下 杉山 浜田 古川
    市川 東 水野 小松 島田 吉川 山内 西田 北村 林 岩崎"""
SURNAMES = tuple(_TEXT.split())
