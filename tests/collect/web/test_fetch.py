"""Which addresses are connected to, under which name, and how much is read."""

import asyncio
import datetime
import gzip
import ipaddress
import socket
import ssl
import threading
import zlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from so8t.collect.web.addresses import canonical, host_of, join, site_of, target_of
from so8t.collect.web.config import Site as Named
from so8t.collect.web.crawl import RETRY_AFTER_MAX_S, retry_after_s
from so8t.collect.web.fetch import Answer, Fetcher, Limits, read_body
from so8t.collect.web.guard import Guard, is_own, is_public
from so8t.collect.web.refusal import Refused, Unreachable
from tests.collect.web.site import Site

LIMITS = Limits(5.0, 10_000)

NOT_PUBLIC = [
    "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.0",  # noqa: S104
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "192.0.2.1", "203.0.113.9", "192.88.99.1", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254",
    "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "2001:0:1:2:3:4:80ff:fffe", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_within_a_network_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are(address):
    assert is_public(ipaddress.ip_address(address))
    assert not is_own(ipaddress.ip_address(address))


def test_even_a_named_host_is_no_metadata_service():
    own = {text for text in NOT_PUBLIC if is_own(ipaddress.ip_address(text))}
    assert own == {
        "127.0.0.1",
        "127.8.8.8",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "::1",
        "fc00::1",
    }


def names(**known):
    """A resolver that gives each name its next list of addresses, the last for ever."""

    async def resolve(host, port):
        answers = known[host.replace(".", "_")]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    return resolve


def get(url, guard, limits=LIMITS, verify=True, wanted=lambda answer: True):
    async def go():
        async with Fetcher("so8t/0 (+x)", guard, verify) as fetcher:
            return await fetcher.get(url, "*/*", limits, wanted)

    return asyncio.run(go())


def judged(host, addresses, private=(), port=80):
    guard = Guard(private, names(**{host.replace(".", "_"): [addresses]}))
    return asyncio.run(guard.addresses(host, port, host if port == 80 else f"{host}:{port}"))


def test_one_bad_address_refuses_the_name():
    assert [str(a) for a in judged("a.example", ["8.8.8.8", "1.1.1.1"])] == ["8.8.8.8", "1.1.1.1"]
    for addresses in (["8.8.8.8", "10.0.0.1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"]):
        with pytest.raises(Refused, match="not public"):
            judged("a.example", addresses)
    with pytest.raises(Refused, match="port"):
        judged("a.example", ["8.8.8.8"], port=22)
    named = Guard((), names(a_example=[["8.8.8.8"]]), ["a.example:8080"])
    assert len(asyncio.run(named.addresses("a.example", 8080, "a.example:8080"))) == 1
    with pytest.raises(Refused, match="none of a private"):
        judged("a.example", ["169.254.169.254"], private=["a.example"])
    with pytest.raises(Unreachable):
        judged("a.example", [])


@pytest.mark.parametrize("url", ["http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://[::ffff:7f00:1]/"])
def test_other_spellings_of_this_machine_are_seen_through(url):
    with pytest.raises((Refused, Unreachable)) as caught:
        get(canonical(url) or url, Guard())
    assert "not public" in str(caught.value) or "no address" in str(caught.value)


def test_a_second_look_up_has_no_say():
    """DNS rebinding: public when it is judged, this machine when it is asked again."""
    with Site() as site:
        site.pages = {"/": (200, {}, b"secret")}
        port = int(site.address.split(":")[1])
        guard = Guard([f"rebound.example:{port}"], names(rebound_example=[["127.0.0.1"], ["169.254.169.254"]]))
        assert get(f"http://rebound.example:{port}/", guard).body == b"secret"
        with pytest.raises(Refused, match="private network"):
            get(f"http://rebound.example:{port}/", guard)
        asked = len(site.asked)
        public_then_here = Guard((), names(rebound_example=[["192.0.2.1"], ["127.0.0.1"]]))
        for _ in range(2):
            with pytest.raises(Refused):
                get(f"http://rebound.example:{port}/", public_then_here)
        assert len(site.asked) == asked


def test_the_next_address_is_tried_where_one_does_not_answer():
    with Site() as site:
        site.pages = {"/": (200, {}, b"here")}
        port = int(site.address.split(":")[1])
        guard = Guard([f"two.example:{port}"], names(two_example=[["127.0.0.99", "127.0.0.1"]]))
        assert get(f"http://two.example:{port}/", guard).body == b"here"


def certificate(tmp_path, name):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1)).not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + made.public_bytes(serialization.Encoding.PEM)
    )  # fmt: skip
    return path


def test_host_and_sni_carry_the_name_and_the_certificate_is_checked_against_it(tmp_path):
    pem = certificate(tmp_path, "shop.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    seen = []
    context.sni_callback = lambda connection, name, _: seen.append(name)
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    hosts = []

    def serve():
        for _ in range(2):
            plain, _ = server.accept()
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    hosts.append(
                        next(line for line in connection.recv(4096).split(b"\r\n") if line.startswith(b"Host"))
                    )
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except (ssl.SSLError, ConnectionError):
                plain.close()

    threading.Thread(target=serve, daemon=True).start()
    guard = Guard(
        [f"shop.example:{port}", f"evil.example:{port}"],
        names(shop_example=[["127.0.0.1"]], evil_example=[["127.0.0.1"]]),
    )
    trusting = ssl.create_default_context(cafile=str(pem))
    assert get(f"https://shop.example:{port}/", guard, verify=trusting).body == b"ok"
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        get(f"https://evil.example:{port}/", guard, verify=trusting)
    assert seen == ["shop.example", "evil.example"]
    assert hosts == [f"Host: shop.example:{port}".encode()]
    server.close()


def body(pieces, packing="", limits=LIMITS):
    async def stream():
        for piece in pieces:
            yield piece

    return asyncio.run(read_body(stream(), packing, limits))


def test_bodies_are_unpacked_within_the_limit():
    packed = gzip.compress(b"a" * 9_000)
    assert body([packed[:5], packed[5:]], "gzip") == b"a" * 9_000
    assert body([packed + b"padding"], "gzip") == b"a" * 9_000
    assert body([b"ab", b"c"], "identity") == b"abc"
    assert body([b"x" * 20_000], "", Limits(5, 10_000, cut=True)) == b"x" * 10_000
    for pieces, packing in (([b"x" * 10_001], ""), ([gzip.compress(b"a" * 10**7)], "gzip")):
        with pytest.raises(Refused, match="larger"):
            body(pieces, packing)
    for packing in ("br", "gzip, gzip", "deflate"):
        with pytest.raises(Refused, match="packed"):
            body([packed], packing)
    with pytest.raises(Refused, match="damaged"):
        body([b"no gzip at all"], "gzip")
    with pytest.raises(Unreachable, match="early"):
        body([packed[:-12]], "gzip")


def test_a_bomb_takes_no_more_room_than_the_limit_and_a_piece(monkeypatch):
    """What is asked of zlib at once is bounded, so a packed gigabyte never stands in memory."""
    asked = []

    class Watched:
        def __init__(self, *args, **kwargs):
            self._inner = real(*args, **kwargs)

        def decompress(self, data, most):
            asked.append(most)
            return self._inner.decompress(data, most)

        def __getattr__(self, name):
            return getattr(self._inner, name)

    real = zlib.decompressobj
    monkeypatch.setattr("so8t.collect.web.fetch.zlib.decompressobj", Watched)
    with pytest.raises(Refused):
        body([gzip.compress(b"\0" * 10**7)], "gzip")
    assert len(asked) == 1
    assert asked[0] <= 64 * 1024


def test_what_takes_too_long_or_lies_about_its_length_did_not_come():
    with Site(slow_s=0.6) as site:
        site.pages = {"/slow": (200, {}, b"x"), "/short": (200, {"Content-Length": "50"}, b"x")}
        guard = Guard([site.address])
        with pytest.raises(Unreachable, match="ReadTimeout"):
            get(f"http://{site.address}/slow", guard, Limits(0.3, 100))
        with pytest.raises(Unreachable):
            get(f"http://{site.address}/short", guard, Limits(1.0, 100))
        got = get(f"http://{site.address}/slow", guard, Limits(5.0, 100), wanted=lambda answer: False)
        assert got.body == b""


def test_an_answer_that_drips_is_not_waited_for_for_ever():
    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    done = threading.Event()

    def drip():
        connection, _ = server.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not done.wait(0.05):
            connection.sendall(b"x")

    threading.Thread(target=drip, daemon=True).start()
    with pytest.raises(Unreachable, match=r"no whole answer in 0\.9 s"):
        get(f"http://{address}/", Guard([address]), Limits(0.9, 2000))
    done.set()
    server.close()


def test_cookies_are_neither_kept_nor_sent():
    async def twice(url, guard):
        async with Fetcher("so8t/0 (+x)", guard) as fetcher:
            for _ in range(2):
                await fetcher.get(url, "*/*", LIMITS, lambda answer: True)

    with Site() as site:
        site.pages = {"/": (200, {"Set-Cookie": "id=1; Path=/"}, b"x")}
        asyncio.run(twice(f"http://{site.address}/", Guard([site.address])))
        assert site.cookies == [None, None]


def test_no_proxy_of_the_environment_is_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Site() as site:
        site.pages = {"/": (200, {}, b"direct")}
        assert get(f"http://{site.address}/", Guard([site.address])).body == b"direct"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("HTTP://Example.COM:80/a/../b/./c#f", "http://example.com/b/c"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com:8443/", "https://example.com:8443/"),
        ("http://日本.example/道?a=道", "http://xn--wgv71a.example/%E9%81%93?a=%E9%81%93"),
        ("http://a.example/%7Eb%2f%e9", "http://a.example/~b%2F%E9"),
        ("http://a.example/50%", "http://a.example/50%25"),
        ("http://a.example./x y", "http://a.example/x%20y"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://a.example/..", "http://a.example/"),
        ("ftp://a.example/", ""), ("http://me:pw@a.example/", ""), ("http:///x", ""), ("http://a.example:x/", ""),
        ("http://[::1/", ""), ("mailto:a@b", ""), ("http://a b/", ""), ("http://a.example/" + "x" * 3000, ""),
    ],
)  # fmt: skip
def test_one_page_has_one_name(url, name):
    assert canonical(url) == name
    assert canonical(name) == name


def test_links_and_sites():
    assert join("http://a.example/x/y", "../z?q=道", "euc_jp") == "http://a.example/z?q=%C6%BB"
    assert join("http://a.example/x", "//b.example") == "http://b.example/"
    assert join("http://a.example/x", "javascript:alert(1)") == ""
    assert target_of("http://a.example/x?y") == "/x?y"
    sites = [Named(host="a.example", subdomains=True), Named(host="b.a.example")]
    assert site_of("http://b.a.example/", sites) is sites[1]
    assert site_of("http://c.a.example/", sites) is sites[0]
    assert site_of("http://a.example:8080/", sites) is None
    assert site_of("http://evila.example/", sites) is None
    assert host_of("http://a.example:8080/") == "a.example:8080"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 0), ("120", 120), ("soon", 0), ("-5", 0), ("9999999", RETRY_AFTER_MAX_S), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)  # fmt: skip
def test_how_long_a_site_wants_to_be_left_alone(text, seconds):
    assert retry_after_s(Answer("http://a.example/", 503, {"retry-after": text})) == seconds
