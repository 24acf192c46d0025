"""What ``twistd`` finds; it is imported at every start of twistd, so it does nothing else."""

from twisted.application.service import ServiceMaker

callme = ServiceMaker(
    "callme",
    "callme.tap",
    "The daemon that calls you back: HTTP callbacks on the minute.",
    "callme",
)
