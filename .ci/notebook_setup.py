# Set-up: does nothing where metarobust is installed. In Colab it fetches the library, never torch or numpy.
import subprocess
import sys
from importlib.util import find_spec

sources = {
    "metarobust": "git+https://github.com/metarobust/metarobust",
    "safetensors": "safetensors",
}
missing = [source for name, source in sources.items() if find_spec(name) is None]
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *missing], check=True)
