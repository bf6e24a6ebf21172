"""Make the picture of the page in README.md; needs Chromium, Node.js and npm."""

import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from PIL import Image

from revgraph import writing
from revgraph.serving import web

BROWSER = Path(__file__).parents[1] / "tests" / "serving" / "browser"

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        driver, page, shot = Path(folder) / "driver", Path(folder) / "page", Path(folder) / "shot.png"
        shutil.copytree(BROWSER, driver)
        subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=driver, check=True)
        writing.write_all({path: content for path, (content, _) in web.example(page).items()})
        with web.server(page, 0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/"
            chromium = shutil.which("chromium") or "chromium"
            subprocess.run(["node", "picture.mjs", chromium, url, str(shot)], cwd=driver, check=True)
            server.shutdown()
        Image.open(shot).convert("RGB").save(Path(__file__).with_suffix(".webp"), quality=70, method=6)
