"""The page of an output folder: it tells what is there, nothing else, and is a sound page in itself."""

import base64
import hashlib
import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ptycho_torch import cli
from ptycho_torch.config_factory import create_training_payload
from ptycho_torch.report import Found, gather, page
from ptycho_torch.runs import RecordError, RunRecord, newest_first, read_losses
from ptycho_torch.simulate import save_simulation, simulate_natural_scan
from ptycho_torch.workflow import METRICS_NAME


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan <b>&amp;.npz"
    save_simulation(simulate_natural_scan(patch_size=16, n_rows=6, n_columns=7, step=3.0, jitter=1.0), path)
    return path


@pytest.fixture(scope="module")
def trained(scan_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    sizes = ["--gridsize", "2", "--n_groups", "8", "--batch_size", "5", "--max_epochs", "3", "--accelerator", "cpu"]
    files = ["--train_data_file", str(scan_path), "--test_data_file", str(scan_path), "--output_dir", str(folder)]
    assert cli.main(["train", *files, *sizes, "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def folder(trained: Path, scan_path: Path) -> Path:
    """Of a training and a reconstruction."""
    files = ["--model_path", str(trained), "--test_data", str(scan_path), "--output_dir", str(trained)]
    assert cli.main(["infer", *files, "--refine", "4", "--quiet"]) == 0
    return trained


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    assert cli.main(["report", str(folder), "--quiet"]) == 0
    return (folder / "report.html").read_text()


def cells(text: str) -> list[list[str]]:
    rows = re.findall(r"<tr.*?>(.*?)</tr>", text, re.DOTALL)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)] for row in rows]


def test_every_key_of_the_configuration_stands_there_with_its_source(text, folder, scan_path):
    payload = create_training_payload(scan_path, folder, {"n_groups": 8})
    rows = {row[0]: row[1:] for row in cells(text)}
    assert payload.audit.keys() <= rows.keys()
    assert rows["batch_size"] == ["5", "said", "16"]
    assert rows["C"] == ["4", "derived", ""]
    assert rows["N"] == ["16", "file", ""]
    assert rows["learning_rate"][1:] == ["default", ""]


def test_what_a_training_began_with_and_was_validated_on_stands_there(text, folder, scan_path, tmp_path):
    rows = {row[0]: row[1:] for row in cells(text)}
    assert html.unescape(rows["validated on"][0]) == str(scan_path.resolve())
    assert rows["began with the weights of"] == ["nothing"]
    copy = shutil.copytree(folder, tmp_path / "copy")
    run = next(newest_first(copy))
    replace(RunRecord.read(run), test_data_file=None, start_from="/models/known.ptycho").write(run)
    rows = {row[0]: row[1:] for row in cells(page(gather(copy), "now"))}
    assert (rows["validated on"], rows["began with the weights of"]) == (["nothing"], ["/models/known.ptycho"])


def test_every_measure_of_quality_stands_there_as_it_was_computed(text, folder):
    metrics = json.loads((folder / METRICS_NAME).read_text())
    rows = {row[0]: row[1:] for row in cells(text)}
    for label, key in (("amplitude PSNR, dB", "amplitude_psnr_db"), ("correlation", "correlation")):
        assert rows[label] == [f"{metrics[which][key]:.4g}" for which in ("reconstruction", "flat")]


def test_pictures_are_inside_byte_for_byte(text, folder):
    (run,) = newest_first(folder)
    inside = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,(.*?)"', text)]
    pictures = [folder / name for name in ("overview.png", "amplitude.png", "phase.png")] + [run / "preview.png"]
    assert inside == [picture.read_bytes() for picture in pictures]


def test_curves_go_through_the_logged_values(folder):
    (run,) = newest_first(folder)
    losses = read_losses(run / "metrics.csv")
    curve, misfit = gather(folder).curves
    assert [one.name for one in curve.series] == ["train_loss", "val_loss"]
    top, bottom = max(curve.rows, key=lambda tick: float(tick.text)), min(curve.rows, key=lambda tick: float(tick.text))
    scale = (float(top.text) - float(bottom.text)) / (bottom.at - top.at)
    for one in curve.series:
        read = [float(bottom.text) + scale * (bottom.at - y) for _, y in one.points]
        assert read == pytest.approx(losses[one.name], abs=scale)
        assert [x for x, _ in one.points] == sorted({x for x, _ in one.points})
    assert len(misfit.series[0].points) == 4
    assert "3 epochs" in curve.summary


def test_the_lead_tells_how_far_it_came(folder, scan_path):
    lead = gather(folder).lead
    assert "finished after 3 epochs." in lead
    assert f"Reconstructed {scan_path.name} with a model: misfit 0." in lead


def test_a_training_without_a_bundle_is_still_running_or_interrupted(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy", ignore=shutil.ignore_patterns("*.ptycho", "reconstruction*"))
    assert "3 epochs are over and no bundle is written yet" in gather(copy).lead


def test_a_reconstruction_alone_has_a_page_too(folder, scan_path, tmp_path):
    files = ["--test_data", str(scan_path), "--output_dir", str(tmp_path), "--epochs", "2", "--quiet"]
    assert cli.main(["reconstruct", *files]) == 0
    found = gather(tmp_path)
    assert "without a model" in found.lead
    assert found.settings == []
    assert len(found.curves) == 1
    assert cli.main(["report", str(tmp_path), "--output", str(tmp_path / "new" / "page.html"), "--quiet"]) == 0
    assert (tmp_path / "new" / "page.html").exists()
    assert not (tmp_path / "report.html").exists()


def test_a_folder_without_a_trace_of_work_is_bad_input(tmp_path, capsys):
    for missing in (tmp_path, tmp_path / "absent"):
        assert cli.main(["report", str(missing)]) == 2
        assert "got no trace of one" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["metrics.json", "reconstruction.json", "run.json"])
def test_what_is_damaged_is_named(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (damaged,) = copy.rglob(name)
    damaged.write_text('{"reconstruction": 1}')
    with pytest.raises(RecordError, match=name):
        gather(copy)


# --- the page itself ------------------------------------------------------------------------------------
def test_the_page_is_sound_html(text):
    html5lib = pytest.importorskip("html5lib")
    assert html5lib.HTMLParser(strict=True).parse(text) is not None
    broken = text.replace("</table>", "", 1)
    with pytest.raises(Exception, match=r"."):
        html5lib.HTMLParser(strict=True).parse(broken)


def test_names_are_text_and_never_markup(text, folder, tmp_path):
    assert "scan <b>" not in text
    assert "scan &lt;b&gt;&amp;amp;.npz" in text
    record = RunRecord.read(next(newest_first(folder)))
    copy = shutil.copytree(folder, tmp_path / "copy")
    hostile = "</style><script>alert(1)</script>\"'"
    replace(record, train_data_file=f"/x/{hostile}", scan={hostile: hostile}).write(next(newest_first(copy)))
    written = page(gather(copy), hostile)
    assert "<script" not in written
    assert written.count("&lt;script&gt;") >= 3


def test_the_page_loads_nothing_and_its_policy_knows_its_style(text):
    assert not re.search(r"https?://", text)
    assert not re.search(r"<(script|link|iframe|object|embed)\b", text)
    assert set(re.findall(r'(?:src|href)="([^"#]{0,5})', text)) == {"data:"}
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in text
    assert " style=" not in text


def test_the_same_folder_is_the_same_page(folder):
    assert page(gather(folder), "now") == page(gather(folder), "now")


def test_a_page_of_nothing_is_a_page():
    assert "<h1><code>empty</code></h1>" in page(Found("empty"), "now")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_nothing_fails_and_nothing_sticks_out_at_the_width_of_a_phone(browser, text, folder, scheme):
    wrong = []
    context = browser.new_context(color_scheme=scheme)
    shown = context.new_page()
    own = (folder / "report.html").as_uri()
    shown.on("console", lambda message: wrong.append(message.text))
    shown.on("request", lambda request: request.url.startswith((own, "data:")) or wrong.append(request.url))
    shown.goto(own)
    for width in (320, 360, 1280):
        shown.set_viewport_size({"width": width, "height": 800})
        shown.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
    context.close()
    assert wrong == []
