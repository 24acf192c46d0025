"""The plugin that makes callme known to twistd, which imports it at every start."""

from twisted.application.service import ServiceMaker

callme = ServiceMaker(
    "callme",
    "callme.tap",
    "The daemon that calls you back: HTTP callbacks on the minute.",
    "callme",
)
