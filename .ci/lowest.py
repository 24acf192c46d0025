"""Print the lowest version that each dependency of the installed callme permits, as requirements.

The arguments name the extras to include.
"""

import re
import sys
from importlib.metadata import requires

for requirement in requires("callme-daemon") or ():
    wanted, _, marker = requirement.partition(";")
    extra = re.search(r'extra == "(.+?)"', marker)
    if extra is not None and extra[1] not in sys.argv[1:]:
        continue
    bound = re.search(r">=\s*([\w.]+)", wanted)
    if bound is None:
        sys.exit(f"{wanted}: it has no lower bound")
    name = re.split(r"[<>=!~\s]", wanted)[0]
    condition = re.sub(r'( and )?extra == ".+?"', "", marker).strip()
    print(f"{name}=={bound[1]}" + (f"; {condition}" if condition else ""))
