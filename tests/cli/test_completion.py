"""What shells complete: asked of the shells themselves, where they are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest
import shtab

from revgraph import cli, variants

ASK = """
source {script}
COMP_WORDS=({words}); COMP_CWORD={last}
"$(complete -p revgraph | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(params=shtab.SUPPORTED_SHELLS)
def shell(request):
    return request.param


def script(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_every_command_and_option_is_in_the_script(shell, capsys):
    text = script(shell, capsys)
    assert [name for name in cli.COMMANDS if name not in text] == []
    assert "variant" in text
    assert "desalinet-centre" in text


def test_the_shell_takes_the_script(shell, capsys, tmp_path):
    if shutil.which(shell) is None or shell in ("tcsh", "powershell"):
        pytest.skip(f"{shell} is not installed, or cannot read a script without running it")
    path = tmp_path / "revgraph"
    path.write_text(script(shell, capsys))
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def completed(capsys, folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (folder / "revgraph.bash").write_text(script("bash", capsys))
    quoted = " ".join(f"'{word}'" for word in ("revgraph", *words))
    asked = ASK.format(script="./revgraph.bash", words=quoted, last=len(words))
    done = subprocess.run(["bash", "-c", asked], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands(capsys, tmp_path):
    assert completed(capsys, tmp_path, "comp") == ["compile", "compare", "completion"]


def test_bash_completes_options(capsys, tmp_path):
    assert completed(capsys, tmp_path, "compile", "--vari") == ["--variant"]


def test_bash_completes_variants(capsys, tmp_path):
    offered = completed(capsys, tmp_path, "compile", "--variant", "")
    assert offered == list(variants.VARIANTS)


def test_bash_completes_files_for_models_and_folders_for_output(capsys, tmp_path):
    (tmp_path / "net.onnx").touch()
    (tmp_path / "nets").mkdir()
    assert sorted(completed(capsys, tmp_path, "compile", "ne")) == ["net.onnx", "nets"]
    assert completed(capsys, tmp_path, "compile", "-o", "ne") == ["nets"]
