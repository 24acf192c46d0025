"""What is around every page: its head, the way to find tasks, the way out."""

from __future__ import annotations

from attrs import field, frozen
from twisted.web.server import Request
from twisted.web.template import Element, Tag, renderer, tags

from .. import __version__
from ..core.pages import LOGOUT
from .assets import ICON, SCRIPT, STYLE
from .parts import Shown, template
from .text import visible

FORM_FIELD = "form"
"""What is called, in every form, the value that no other page can know."""
_TOOLS = template("tools")


@frozen
class Who:
    """Who looks at a page.

    :ivar may_change: whether they may do more than look.
    :ivar form: what their forms must bring along; ``None`` where nobody logs in.
    """

    may_change: bool = True
    form: str | None = field(default=None, repr=False)

    def guard(self) -> list[Tag]:
        """Return what a form must hold besides its own fields."""
        if self.form is None:
            return []
        return [tags.input(type="hidden", name=FORM_FIELD, value=self.form)]


class Frame(Element):
    """A whole page.

    :param main: what is in it.
    :param who: ``None`` for a stranger.
    :param node: the name of the daemon that serves it.
    :param live: whether it is to be fetched anew while somebody looks at it.
    """

    loader = template("frame")

    def __init__(
        self, title: str, main: Shown, who: Who | None, node: str, *, live: bool = False
    ) -> None:
        super().__init__()
        self._title = title
        self._main = main
        self._who = who
        self._node = node
        self._live = live

    @renderer
    def page(self, request: Request, tag: Tag) -> Tag:
        about: list[Shown] = [f"callme {__version__}"]
        if self._who is not None:
            about += [", served by ", tags.bdi(visible(self._node)), "."]
        return tag.fillSlots(
            title=visible(self._title),
            style=STYLE.path,
            icon=ICON.path,
            script=SCRIPT.path,
            live="yes" if self._live else "no",
            main=self._main,
            about=about,
        )

    @renderer
    def tools(self, request: Request, tag: Tag) -> Shown:
        if self._who is None:
            return ""
        logout: Tag | str = ""
        if self._who.form is not None:
            button = tags.button("Log out", class_="quiet")
            logout = tags.form(self._who.guard(), button, action=LOGOUT, method="post")
        return tags.transparent(*_TOOLS.load()).fillSlots(logout=logout)
