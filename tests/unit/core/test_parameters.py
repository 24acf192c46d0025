from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callme.core.callback_url import host_of
from callme.core.headers import looks_secret, redact_secrets
from callme.core.parameters import parse_definition
from callme.core.put_warnings import attempts_that_fit
from callme.core.task import Definition
from callme.errors import FieldError, Invalid
from callme.reports.forecast import attempts_at
from callme.security.address_policy import AddressPolicy, parse_network

NOW = 1_800_014_437.25
LEAST: dict[str, object] = {"trigger_at": "+1h", "callback": "http://example.com/"}


def parse(**body: Any) -> Definition:
    return parse_definition({**LEAST, **body}, NOW, task_name="name")


def refused(**body: Any) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        parse(**body)
    return [(error.pointer, error.detail) for error in caught.value.errors]


def test_omitted_parameters_have_the_documented_defaults() -> None:
    assert (
        Definition(
            task_name="name",
            trigger_at=1_800_018_060,
            callback="http://example.com/",
            callback_method="GET",
            payload="",
            payload_base64="",
            headers={},
            expected_http_status=(200,),
            no_retry_http_status=(),
            retry=1,
            retry_delay=(1,),
            max_delay=10,
            timeout=30,
            labels={},
        )
        == parse()
    )


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    [
        ({"callback_method": "post"}, "callback_method", "POST"),
        ({"callback_method": "X-y!"}, "callback_method", "X-Y!"),
        ({"payload": "é" * 131_072}, "payload", "é" * 131_072),
        ({"payload": {"b": [1, 2.5, None], "a": "é"}}, "payload", '{"b":[1,2.5,null],"a":"é"}'),
        ({"payload": [1, {}]}, "payload", "[1,{}]"),
        ({"payload": {}}, "payload", "{}"),
        ({"payload": ["x" * 262_140]}, "payload", f'["{"x" * 262_140}"]'),
        ({"payload_base64": "AP8BgA=="}, "payload_base64", "AP8BgA=="),
        ({"payload_base64": "AB=="}, "payload_base64", "AA=="),
        ({"payload_base64": ""}, "payload_base64", ""),
        ({"payload_base64": "AAAA" * 87_381}, "payload_base64", "AAAA" * 87_381),
        ({"payload_base64": "AP8BgA=="}, "body", b"\x00\xff\x01\x80"),
        ({"payload": "é"}, "body", b"\xc3\xa9"),
        ({"expected_http_status": 204}, "expected_http_status", (204,)),
        ({"expected_http_status": "204"}, "expected_http_status", (204,)),
        ({"expected_http_status": ["204", "2xx", 204]}, "expected_http_status", (204, "2xx")),
        ({"expected_http_status": "2XX"}, "expected_http_status", ("2xx",)),
        ({"expected_http_status": [404, "2xx", 404]}, "expected_http_status", ("2xx", 404)),
        ({"no_retry_http_status": 410}, "no_retry_http_status", (410,)),
        ({"no_retry_http_status": ["4xx", 410]}, "no_retry_http_status", (410, "4xx")),
        ({"no_retry_http_status": []}, "no_retry_http_status", ()),
        ({"labels": {"b": "2", "a": "é"}}, "labels", {"a": "é", "b": "2"}),
        ({"labels": {"k" * 64: "v" * 256}}, "labels", {"k" * 64: "v" * 256}),
        ({"labels": {}}, "labels", {}),
        ({"retry": 0}, "retry", 0),
        ({"retry": 1000}, "retry", 1000),
        ({"retry_delay": 0}, "retry_delay", (0,)),
        ({"retry_delay": [1, 5, 30, 30]}, "retry_delay", (1, 5, 30)),
        ({"max_delay": 1}, "max_delay", 1),
        ({"max_delay": 525_600}, "max_delay", 525_600),
        ({"timeout": 1800}, "timeout", 1800),
        ({"headers": {"X-A": "b\tc é"}}, "headers", {"X-A": "b\tc é"}),
        ({"callback": "https://[::1]:8443/?q#f"}, "callback", "https://[::1]:8443/?q#f"),
        ({"task_name": "name"}, "task_name", "name"),
    ],
)
def test_valid_value_is_accepted(body: dict[str, Any], field: str, expected: object) -> None:
    assert expected == getattr(parse(**body), field)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"trigger_at": "soon"}, "/trigger_at"),
        ({"trigger_at": True}, "/trigger_at"),
        ({"callback": "ftp://example.com/"}, "/callback"),
        ({"callback": "example.com/"}, "/callback"),
        ({"callback": "http:example.com"}, "/callback"),
        ({"callback": "http:///path"}, "/callback"),
        ({"callback": "http://user:secret@example.com/"}, "/callback"),
        ({"callback": "http://example.com:0/"}, "/callback"),
        ({"callback": "http://example.com:99999/"}, "/callback"),
        ({"callback": "http://example.com:/"}, "/callback"),
        ({"callback": "http://exa mple.com/"}, "/callback"),
        ({"callback": "http://exämple.com/"}, "/callback"),
        ({"callback": "http://example.com/\r\nX: y"}, "/callback"),
        ({"callback": "http://a..b/"}, "/callback"),
        ({"callback": "http://-a/"}, "/callback"),
        ({"callback": f"http://{'a' * 64}.b/"}, "/callback"),
        ({"callback": "http://[::1/"}, "/callback"),
        ({"callback": "http://[::1]80/"}, "/callback"),
        ({"callback": "http://[::1].example/"}, "/callback"),
        ({"callback": "http://[fe80::1%25eth0]/"}, "/callback"),
        ({"callback": "http://[zz]/"}, "/callback"),
        ({"callback": "http://good\\@evil/"}, "/callback"),
        ({"callback": f"http://{'a.' * 127}com/"}, "/callback"),
        ({"callback": "http://example.com/" + "x" * 2083}, "/callback"),
        ({"callback": "http://2130706433/"}, "/callback"),
        ({"callback": "http://0x7f.1:80/"}, "/callback"),
        ({"callback": "http://0177.0.0.1/"}, "/callback"),
        ({"callback": "http://127.1/"}, "/callback"),
        ({"callback": "http://127.0.0.1.1/"}, "/callback"),
        ({"callback": "http://256.0.0.1./"}, "/callback"),
        ({"callback": "http://0x/"}, "/callback"),
        ({"callback": "http://169.254.169.254/latest"}, "/callback"),
        ({"callback": "http://169.254.169.254./"}, "/callback"),
        ({"callback": "https://[::ffff:a9fe:a9fe]:443/"}, "/callback"),
        ({"callback": "http://[fd00:ec2::254]/"}, "/callback"),
        ({"callback": None}, "/callback"),
        ({"callback_method": "CONNECT"}, "/callback_method"),
        ({"callback_method": "trace"}, "/callback_method"),
        ({"callback_method": "GE T"}, "/callback_method"),
        ({"callback_method": ""}, "/callback_method"),
        ({"callback_method": 5}, "/callback_method"),
        ({"payload": 1}, "/payload"),
        ({"payload": True}, "/payload"),
        ({"payload": ["x" * 262_141]}, "/payload"),
        ({"payload_base64": "AAAA" * 87_382}, "/payload_base64"),
        ({"payload_base64": "A"}, "/payload_base64"),
        ({"payload_base64": "AA"}, "/payload_base64"),
        ({"payload_base64": "AA==AA=="}, "/payload_base64"),
        ({"payload_base64": "AA\n=="}, "/payload_base64"),
        ({"payload_base64": "_-8="}, "/payload_base64"),
        ({"payload_base64": "é"}, "/payload_base64"),
        ({"payload_base64": []}, "/payload_base64"),
        ({"payload_base64": None}, "/payload_base64"),
        ({"payload_base64": "AAAA", "payload": "a"}, "/payload_base64"),
        ({"payload_base64": "", "payload": ""}, "/payload_base64"),
        ({"payload": "x" * 262_145}, "/payload"),
        ({"payload": None}, "/payload"),
        ({"expected_http_status": 99}, "/expected_http_status"),
        ({"expected_http_status": 600}, "/expected_http_status"),
        ({"expected_http_status": "6xx"}, "/expected_http_status"),
        ({"expected_http_status": 199}, "/expected_http_status"),
        ({"expected_http_status": "1xx"}, "/expected_http_status"),
        ({"expected_http_status": "99"}, "/expected_http_status"),
        ({"expected_http_status": "100"}, "/expected_http_status"),
        ({"expected_http_status": "600"}, "/expected_http_status"),
        ({"expected_http_status": "200,204"}, "/expected_http_status"),
        ({"expected_http_status": []}, "/expected_http_status"),
        ({"expected_http_status": [200] * 101}, "/expected_http_status"),
        ({"expected_http_status": [200, True]}, "/expected_http_status/1"),
        ({"expected_http_status": [[200]]}, "/expected_http_status/0"),
        ({"retry": -1}, "/retry"),
        ({"retry": 1001}, "/retry"),
        ({"retry": True}, "/retry"),
        ({"retry": 1.0}, "/retry"),
        ({"retry": "1"}, "/retry"),
        ({"retry": 2**63}, "/retry"),
        ({"no_retry_http_status": [410, 199]}, "/no_retry_http_status/1"),
        ({"no_retry_http_status": None}, "/no_retry_http_status"),
        ({"labels": ["a"]}, "/labels"),
        ({"labels": {f"k{number}": "" for number in range(17)}}, "/labels"),
        ({"labels": {"": ""}}, "/labels"),
        ({"labels": {"A": ""}}, "/labels"),
        ({"labels": {"k" * 65: ""}}, "/labels"),
        ({"labels": {"a": 42}}, "/labels/a"),
        ({"labels": {"a": "v" * 257}}, "/labels/a"),
        ({"labels": {"a": "x\0"}}, "/labels/a"),
        ({"retry_delay": [1, -1]}, "/retry_delay/1"),
        ({"retry_delay": "1"}, "/retry_delay"),
        ({"max_delay": 0}, "/max_delay"),
        ({"max_delay": 525_601}, "/max_delay"),
        ({"timeout": 0}, "/timeout"),
        ({"timeout": 1801}, "/timeout"),
        ({"timeout": None}, "/timeout"),
        ({"headers": []}, "/headers"),
        ({"headers": {"Host": "x"}}, "/headers/Host"),
        ({"headers": {"content-LENGTH": "5"}}, "/headers/content-LENGTH"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "/headers/Transfer-Encoding"),
        ({"headers": {"Connection": "close"}}, "/headers/Connection"),
        ({"headers": {"Idempotency-Key": "me"}}, "/headers/Idempotency-Key"),
        ({"headers": {"Callme-Attempt": "1"}}, "/headers/Callme-Attempt"),
        ({"headers": {"Callme-Trigger-At": "1"}}, "/headers/Callme-Trigger-At"),
        ({"headers": {"Accept-Encoding": "gzip"}}, "/headers/Accept-Encoding"),
        ({"headers": {"webhook-ID": "me"}}, "/headers/webhook-ID"),
        ({"headers": {"Webhook-Timestamp": "1"}}, "/headers/Webhook-Timestamp"),
        ({"headers": {"Webhook-Signature": "v1,x"}}, "/headers/Webhook-Signature"),
        ({"headers": {"X-A": 5}}, "/headers/X-A"),
        ({"headers": {"X-A": "a\r\nB: c"}}, "/headers/X-A"),
        ({"headers": {"X-A": "a\0"}}, "/headers/X-A"),
        ({"headers": {"X-A": "a\nB: c"}}, "/headers/X-A"),
        ({"headers": {"X-A": "a\rB: c"}}, "/headers/X-A"),
        ({"headers": {"X-A": "a\x0bB: c"}}, "/headers/X-A"),
        ({"headers": {"X-A": "a\x85B: c"}}, "/headers/X-A"),
        ({"headers": {"X-A": "a\u2028B: c"}}, "/headers/X-A"),
        ({"headers": {"X-A": " a"}}, "/headers/X-A"),
        ({"headers": {"Content_Length": "5"}}, "/headers/Content_Length"),
        ({"headers": {"transfer_encoding": "x"}}, "/headers/transfer_encoding"),
        ({"headers": {"Webhook_Signature": "v1,x"}}, "/headers/Webhook_Signature"),
        ({"headers": {"X A": "a"}}, "/headers"),
        ({"headers": {"X/~A": "a"}}, "/headers"),
        ({"headers": {"X-A:": "a"}}, "/headers"),
        ({"headers": {"X-A\n": "a"}}, "/headers"),
        ({"headers": {"": "a"}}, "/headers"),
        ({"headers": {"é": "a"}}, "/headers"),
        ({"headers": {"X-~A": 5}}, "/headers/X-~0A"),
        ({"headers": {"X-A": "a", "x-a": "b"}}, "/headers/x-a"),
        ({"headers": {f"X-{n}": "" for n in range(101)}}, "/headers"),
        ({"headers": {"X-A": "x" * 8_192}}, "/headers"),
        ({"task_name": "other"}, "/task_name"),
        ({"task_name": 5}, "/task_name"),
        ({"retries": 3}, "/retries"),
        ({"Retry": 3}, "/Retry"),
        ({"é/": 3}, "/\\xe9~1"),
    ],
)
def test_invalid_value_is_refused_by_name(body: dict[str, Any], pointer: str) -> None:
    found = refused(**body)
    assert [pointer] == [at for at, _ in found]
    assert all(detail.isascii() and 10 < len(detail) < 500 for _, detail in found)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"retries": 3}, "did you mean retry?"),
        ({"url": "http://a/"}, "did you mean callback?"),
        ({"body": "x"}, "did you mean payload?"),
        ({"delay": 5}, "did you mean trigger_at?"),
        ({"expected_status": 200}, "did you mean expected_http_status?"),
        ({"retry_dealy": 5}, "did you mean retry_delay?"),
        ({"colour": 5}, "is not a parameter: expected one of callback"),
        ({"expected_http_status": "200,204"}, "expected a list, such as [200, 204]"),
        ({"expected_http_status": 100}, "a 1xx is never a final response"),
        ({"expected_http_status": "1xx"}, "a 1xx is never a final response"),
        ({"payload": 5}, "a number is not accepted: expected a string, an object or a list"),
        ({"payload_base64": "AA"}, "is not base64"),
        ({"payload_base64": "AAAA", "payload": "a"}, "is given beside payload"),
    ],
)
def test_invalid_value_is_refused_with_the_way_out(body: dict[str, Any], expected: str) -> None:
    ((_, detail),) = refused(**body)
    assert expected in detail


def test_address_as_a_name_in_the_url_is_refused_with_advice() -> None:
    with pytest.raises(Invalid, match="a name has no '@'") as caught:
        parse_definition(LEAST, NOW, task_name="bob", trigger_at="example.com")
    assert next(error.pointer for error in caught.value.errors) == "trigger_at"
    with pytest.raises(Invalid) as caught:
        parse_definition(LEAST, NOW, task_name="bob", trigger_at="20281126T0900")
    assert "a name has no" not in str(caught.value)


def test_every_accepted_time_may_stand_in_the_url() -> None:
    body = {"callback": LEAST["callback"]}
    for text in ("+6h", "1d12h", "now", "PT5M", "2028-11-26 09:00[Europe/Berlin]", "1858809637.5"):
        made = parse_definition(body, NOW, task_name="name", trigger_at=text)
        assert made.trigger_at == parse(trigger_at=text).trigger_at


def warned(name: str | None = "name", at: str | None = None, **body: Any) -> list[tuple[str, str]]:
    warnings: list[FieldError] = []
    parse_definition({**LEAST, **body}, NOW, task_name=name, trigger_at=at, warnings=warnings)
    return [(warning.pointer, warning.detail) for warning in warnings]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"callback_method": "POST", "payload": "a"},
        {"callback_method": "GET", "payload": "a"},
        {"payload": "", "retry": 9},
        {"retry": 43, "retry_delay": 0},
        {"retry": 2, "retry_delay": [4, 5]},
        {"trigger_at": "2028-03-26T03:30[Europe/Berlin]"},
    ],
)
def test_plain_definition_has_no_warnings(body: dict[str, Any]) -> None:
    assert warned(**body) == []


@pytest.mark.parametrize(
    ("body", "pointer", "expected"),
    [
        ({"payload": "a"}, "/callback_method", "sent with GET, the default"),
        ({"payload": {}}, "/callback_method", "sent with GET, the default"),
        ({"payload_base64": "AAAA"}, "/callback_method", "sent with GET, the default"),
        ({"retry": 20, "retry_delay": 5}, "/max_delay", "2 of 21 attempts fit before max_delay"),
        ({"retry": 10}, "/max_delay", "10 of 11 attempts fit"),
        ({"retry": 1000, "retry_delay": 0}, "/max_delay", "44 of 1,001 attempts fit"),
        (
            {"max_delay": 1},
            "/max_delay",
            "1 of 2 attempts fit before max_delay, which ends 1 m",
        ),
        (
            {"trigger_at": "2028-03-26T02:30[Europe/Berlin]"},
            "/trigger_at",
            "2028-03-26T02:30[Europe/Berlin] is skipped by the zone: it becomes 03:30",
        ),
        (
            {"trigger_at": "2028-10-29T02:30[Europe/Berlin]"},
            "/trigger_at",
            "2028-10-29T02:30[Europe/Berlin] occurs twice: the first one is used",
        ),
    ],
)
def test_definition_that_is_perhaps_not_meant_has_a_warning(
    body: dict[str, Any], pointer: str, expected: str
) -> None:
    ((at, detail),) = warned(**body)
    assert at == pointer
    assert expected in detail


def test_warning_of_a_time_in_url_and_body_is_given_once() -> None:
    text = "2028-10-29T02:30[Europe/Berlin]"
    assert [at for at, _ in warned(at=text, trigger_at=text)] == ["/trigger_at"]


@given(
    retry=st.integers(0, 30),
    delays=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    max_delay=st.integers(1, 60),
    ago=st.integers(0, 20),
)
def test_attempts_that_fit_are_those_of_a_dry_run(
    retry: int, delays: list[int], max_delay: int, ago: int
) -> None:
    made = parse(
        trigger_at=int(NOW) - ago * 60, retry=retry, retry_delay=delays, max_delay=max_delay
    )
    if made.expires_at > NOW:
        assert attempts_that_fit(made, NOW) == len(attempts_at(made, NOW))


def test_all_errors_are_reported_together() -> None:
    found = dict(refused(retry=-1, timeout=0, colour="red", callback=5))
    assert {"/retry", "/timeout", "/colour", "/callback"} == set(found)
    assert "expected one of callback, callback_method" in found["/colour"]
    assert "expected an integer from 0 to 1,000" in found["/retry"]


def test_missing_parameter_is_named() -> None:
    with pytest.raises(Invalid) as caught:
        parse_definition({}, NOW)
    assert [e.pointer for e in caught.value.errors] == ["/task_name", "/trigger_at", "/callback"]


def test_name_and_time_come_from_url_or_body_or_agree() -> None:
    in_body = parse_definition({**LEAST, "task_name": "name"}, NOW)
    in_url = parse_definition(
        {"callback": "http://example.com/"}, NOW, task_name="name", trigger_at="+1h"
    )
    in_both = parse_definition(
        {**LEAST, "task_name": "name"}, NOW, task_name="name", trigger_at="1800018077"
    )
    assert in_body == in_url == in_both


def test_time_unlike_that_of_the_url_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        parse_definition(LEAST, NOW, task_name="name", trigger_at="1800018120")
    assert [e.pointer for e in caught.value.errors] == ["/trigger_at"]
    assert "disagree" in caught.value.errors[0].detail


def test_invalid_name_in_the_url_is_reported_once() -> None:
    with pytest.raises(Invalid) as caught:
        parse_definition(LEAST, NOW, task_name="a/b")
    assert [e.pointer for e in caught.value.errors] == ["task_name"]


def test_errors_contain_no_secrets() -> None:
    for host in ("example.com", "[::1", "a:99999", "a b", "a:", "a\\b"):
        assert "hunter2" not in str(refused(callback=f"http://me:hunter2@{host}/"))
    assert "hunter2" not in str(refused(headers={"Authorization": "hunter2\n"}))


@pytest.mark.parametrize(
    ("callback", "host"),
    [
        ("http://Example.COM/x", "example.com:80"),
        ("https://example.com", "example.com:443"),
        ("http://example.com.:8080/", "example.com:8080"),
        ("http://[0:0::1]/", "[::1]:80"),
        ("HTTP://a-b:1", "a-b:1"),
        ("http://127.1/", "127.1:80"),
    ],
)
def test_host_is_normalized_with_its_port(callback: str, host: str) -> None:
    assert host == host_of(callback)


@pytest.mark.parametrize(
    "callback",
    [
        "http://127.0.0.1:8000/",
        "http://10.0.0.1./",
        "http://[::1]/",
        "http://0xcafe.example/",
        "http://a_b/",
        "http://_a._b.example_:80/",
        "http://qa--site.example/",
        "http://xn--i-7iq.example/",
        "http://1.example/",
        "http://metadata.google.internal/",
    ],
)
def test_private_addresses_and_all_names_are_accepted(callback: str) -> None:
    assert parse(callback=callback).callback == callback


def test_address_policy_decides_which_addresses_are_accepted() -> None:
    inside = AddressPolicy(allowed=[parse_network("10.0.0.0/8")], public_only=True)
    body = {**LEAST, "callback": "http://10.1.2.3/"}
    assert parse_definition(body, NOW, task_name="name", networks=inside)
    with pytest.raises(Invalid, match=r"192\.168\.0\.1 must not be called: .*private use"):
        parse_definition(
            {**body, "callback": "http://192.168.0.1/"}, NOW, task_name="name", networks=inside
        )


@pytest.mark.parametrize(
    ("status", "expected", "success"),
    [
        (200, 200, True),
        (204, 200, False),
        (204, "2xx", True),
        (404, [404, "2xx"], True),
        (500, [404, "2xx"], False),
    ],
)
def test_expected_status_decides_success(status: int, expected: object, success: bool) -> None:
    assert success is parse(expected_http_status=expected).expects(status)


@pytest.mark.parametrize(
    "name",
    ["Authorization", "cookie", "X-Api-Key", "X-Auth", "X-CSRF-Token", "X-Secret", "X-Signature"],
)
def test_secret_headers_are_redacted(name: str) -> None:
    assert looks_secret(name)
    assert {name: "***", "X-Other": "shown"} == redact_secrets(
        {name: "hunter2", "X-Other": "shown"}
    )


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ONE = LEAF | st.lists(LEAF, max_size=3) | st.dictionaries(st.text(), LEAF, max_size=3)
JSON = ONE | st.lists(ONE, max_size=3)
FIELDS = [
    "task_name",
    "trigger_at",
    "callback",
    "callback_method",
    "payload",
    "payload_base64",
    "headers",
    "expected_http_status",
    "retry",
    "retry_delay",
    "max_delay",
    "timeout",
    "no_retry_http_status",
    "labels",
    "other",
]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.none() | st.text(), st.none() | st.text())
def test_any_body_is_a_definition_or_refused(
    body: dict[str, object], name: str | None, at: str | None
) -> None:
    try:
        made = parse_definition(body, NOW, task_name=name, trigger_at=at)
    except Invalid as error:
        assert error.errors
        assert all(one.pointer.isascii() for one in error.errors)
    else:
        assert made.trigger_at % 60 == 0
        assert made.expires_at > made.trigger_at


@given(st.text(), st.sampled_from(["http://", "https://", ""]))
def test_any_url_is_accepted_or_refused(text: str, scheme: str) -> None:
    try:
        made = parse(callback=scheme + text)
    except Invalid:
        return
    assert host_of(made.callback).rpartition(":")[2].isdigit()
