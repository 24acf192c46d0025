from __future__ import annotations

from callme.worker.host_memory import MAX_TRACKED_HOSTS, HostMemory


def test_host_that_does_not_respond_is_no_longer_recently_responsive() -> None:
    hosts = HostMemory()
    hosts.record_call("a", responded=True)
    hosts.record_call("b", responded=True)
    hosts.record_call("a", responded=False)
    assert list(hosts.recently_responsive) == ["b"]
    # It has responded in this minute.
    assert hosts.responsive == {"a", "b"}


def test_new_minute_forgets_responsive_hosts_only() -> None:
    hosts = HostMemory()
    hosts.record_call("a", responded=True)
    hosts.begin_minute()
    assert hosts.responsive == set()
    assert list(hosts.recently_responsive) == ["a"]


def test_hosts_called_longest_ago_are_evicted() -> None:
    hosts = HostMemory()
    for number in range(MAX_TRACKED_HOSTS):
        hosts.record_call(f"h{number}", responded=True)
    hosts.record_call("h0", responded=True)
    hosts.record_call("new", responded=True)
    assert len(hosts.recently_responsive) == MAX_TRACKED_HOSTS
    assert "h1" not in hosts.recently_responsive
    assert list(hosts.recently_responsive)[-2:] == ["h0", "new"]
