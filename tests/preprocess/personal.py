"""Personal data and what only looks like it, all of it made up. `{KIND:secret}` marks what must go."""

import re

PERSONAL = (
    "携帯は{PHONE:080-2345-6789}です",
    "携帯は{PHONE:０８０−２３４５−６７８９}まで",
    "代表{PHONE:０６（６１２３）４５６７}へ",
    "電話 {PHONE:〇三―六二三四―五六七八} に",
    "電話は{PHONE:０８０ー２３４５ー６７８９}です",
    "TEL: {PHONE:+81-3-6234-5678} (office)",
    "reach me at {PHONE:(03) 6234-5678} please",
    "番号は{PHONE:08023456789}だよ",
    "tel.{PHONE:080.2345.6789}まで",
    "受付{PHONE:0120-444-113}は無料",
    "IP電話{PHONE:050‐3123‐4567}に転送",
    "FAX {PHONE:0467 22 3456} に送る",
    "連絡は{EMAIL:hanako.k@mail.example.co.jp}まで",
    "連絡は{EMAIL:ｈａｎａｋｏ＠ｅｘａｍｐｌｅ．ｊｐ}まで",
    "write to {EMAIL:hanako[at]example[dot]jp} today",
    "連絡は{EMAIL:hanako（アット）example.jp}まで",
    "write to {EMAIL:hanako at example dot com} today",
    "マイナンバー：{MY_NUMBER:987654321098}",
    "控え {MY_NUMBER:9876-5432-1093} を保管",
    "個人番号は{MY_NUMBER:９８７６ ５４３２ １０９３}です",
    "カード{CARD:5555-5555-5555-4444}で払う",
    "カード番号{CARD:４１１１１１１１１１１１１１１１}です",
    "届け先は{POSTCODE:〒987-6543}",
    "住所は{ADDRESS:神奈川県架空市仮町3丁目4番5号}です",
    "住所は{ADDRESS:架空市見本区仮町12-3-45}です",
    "運転免許証の番号は{ACCOUNT:301234567890}です",
    "見本銀行仮支店 普通 {ACCOUNT:7654321} に振込",
    "ゆうちょ 記号{ACCOUNT:12340} 番号{ACCOUNT:76543210}",
    "接続元は{IP:203.0.113.77}でした",
    "接続元は{IP:2001:db8:85a3::8a2e:370:7334}でした",
    "担当は{NAME:渡辺美咲}様です",
    "氏名: {NAME:高橋健太}、以上",
)
HARMLESS = (
    "ISBN 978-4-16-123456-8 の新刊",
    "ISBN4-00-310101-4の旧版",
    "ISSN 1347-1234 の会誌",
    "JAN 4512345678906 の商品",
    "法人番号 5010401067252 の届出",
    "ご注文番号 503-8841207-2231059 の発送",
    "伝票番号 4412-8830-1196 の荷物",
    "記録は 2023-11-04T08:15:30+09:00 から",
    "UNIX時刻 1699053330123 に記録",
    "20231104081530 に保存した",
    "価格は 1,234,500円、税込 1,357,950円",
    "緯度34.693738、経度135.502165",
    "ユーザーID 88210033417 の投稿",
    "バージョン1.22.3.4に更新",
    "Windows 10.0.19045.3693 で確認",
    "型番 RX-0780-2214-B の部品",
    "昭和22年法律第67号の第252条の17",
    "比は 3:2:1 で、時刻は 12:34:56",
    "渡辺橋を渡り、高橋川に沿って歩く",
    "東京都の人口は1,396万人、面積は2194平方キロ",
    "特許第6543210号と特開2021-123456",
    "look at dots on the map at noon",
)
_MARK = re.compile(r"\{([A-Z_]+):(.+?)\}")


def raw(text: str) -> str:
    """The text as somebody wrote it."""
    return _MARK.sub(r"\2", text)


def wanted(text: str) -> str:
    """The text as it may be kept."""
    return _MARK.sub(r"[\1]", text)


def secrets(text: str) -> list[str]:
    """What must not be found in it any more."""
    return [match[2] for match in _MARK.finditer(text)]
