"""A photograph goes in, the same kind of photograph comes out; a folder is done once, and not in part."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cvpr21lib import cli, images
from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import cube, lut, weights
from cvpr21lib.ppr10k.model import LightPredictor, ResNet18Predictor, Retoucher, resize
from cvpr21lib.ppr10k.retouch import JOURNAL, look, retouch, retouch_folder, thumbnail

torch.set_num_threads(1)


def make(seed: int = 0, size: int = 9) -> Retoucher:
    """A small network that answers photographs differently, with LUTs around the identity."""
    torch.manual_seed(seed)
    network = Retoucher(LightPredictor(3, thumbnail=16, widths=(8, 8)), size)
    network.luts.data[0] = lut.identity(size)
    network.luts.data += 0.1 * torch.randn(network.luts.shape)
    return network


@pytest.fixture(scope="module")
def network() -> Retoucher:
    return make()


def scene(*shape: int, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape)
    return values.astype(dtype)


def as_tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32) / np.iinfo(values.dtype).max).permute(2, 0, 1)


def expected(network: Retoucher, image: torch.Tensor) -> torch.Tensor:
    """What the network gives in evaluation mode, clamped."""
    training = network.training
    with torch.no_grad():
        out = network.eval()(image[None])[0].clamp(0, 1)
    network.train(training)
    return out


# --- the thumbnail ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (16, 16), (40, 52), (224, 300), (601, 333)])
@pytest.mark.parametrize("side", [16, 64])
def test_the_thumbnail_is_the_one_the_network_would_make(shape, side):
    values = scene(*shape, 3)
    wanted = resize(as_tensor(values)[None], side)
    torch.testing.assert_close(thumbnail(values, side), wanted, rtol=0, atol=3e-5)
    floats = values.astype(np.float32) / 255
    torch.testing.assert_close(thumbnail(floats, side), wanted, rtol=0, atol=3e-5)


# --- one photograph, many forms ---------------------------------------------------------------------------


def test_a_tensor_gives_the_networks_output_clamped(network):
    image = torch.rand(2, 3, 33, 50)
    out = retouch(image, network)
    for one, result in zip(image, out, strict=True):
        torch.testing.assert_close(result, expected(network, one), rtol=0, atol=1e-6)
        torch.testing.assert_close(retouch(one, network), result, rtol=0, atol=1e-6)
    assert out.min() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_tensor_keeps_its_type(network, dtype):
    image = torch.rand(3, 12, 17).to(dtype)
    assert retouch(image, network).dtype == dtype


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (37, 50), (64, 96)])
def test_eight_bits_are_within_one_count_of_rounded_floats(network, shape):
    values = scene(*shape, 3)
    out = retouch(values, network)
    assert out.dtype == np.uint8
    wanted = 255 * expected(network, as_tensor(values)).permute(1, 2, 0).numpy()
    assert np.abs(out - wanted).max() <= 1


def test_large_photographs_go_through_the_table_and_come_out_the_same(network, monkeypatch):
    values = scene(37, 50, 3)
    usual = retouch(values, network)
    module = sys.modules[retouch.__module__]
    monkeypatch.setattr(module, "LARGE", 37 * 50)
    monkeypatch.setattr(lut, "apply_8bit", None)
    assert np.abs(retouch(values, network).astype(int) - usual).max() <= 1


def test_all_forms_of_an_8_bit_photograph_give_the_same_pixels(network, tmp_path):
    values = scene(21, 30, 3)
    array = retouch(values, network)
    images.write(tmp_path / "photo.png", images.from_array(values))
    for photo in (images.from_array(values), tmp_path / "photo.png", str(tmp_path / "photo.png")):
        result = retouch(photo, network)
        assert isinstance(result, images.Photo)
        np.testing.assert_array_equal(images.to_array(result), array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_depth_alpha_and_profile_of_a_photo_are_kept(network, dtype):
    values = scene(20, 26, 4, dtype=dtype)
    profile = bytes(16) + b"RGB " + bytes(108)
    result = retouch(images.from_array(values, profile), network)
    assert (result.bits, result.icc) == (8 * np.dtype(dtype).itemsize, profile)
    stored = images.to_array(result)
    np.testing.assert_array_equal(stored[..., 3], values[..., 3])
    top = np.iinfo(dtype).max
    wanted = top * expected(network, as_tensor(values[..., :3])).permute(1, 2, 0).numpy()
    assert np.abs(stored[..., :3] - wanted).max() <= (1 if dtype == np.uint8 else 3)


def test_sixteen_bits_are_not_rounded_to_eight(network):
    ramp = np.linspace(20000, 21000, 600).astype(np.uint16)
    values = np.repeat(ramp.reshape(20, 30, 1), 3, axis=2)
    stored = images.to_array(retouch(images.from_array(values), network))
    assert len(np.unique(stored[..., 0])) > 100


def test_views_that_cannot_be_written_to_are_retouched_too(network):
    values = scene(20, 26, 3)
    values.flags.writeable = False
    wanted = retouch(values, network)
    photo = images.from_array(scene(20, 26, 3, dtype=np.uint16))
    photo.pixels.flags.writeable = False
    mirrored = replace(photo, pixels=photo.pixels[:, ::-1])
    assert np.array_equal(retouch(values[:, ::-1].copy()[:, ::-1], network), wanted)
    assert retouch(mirrored, network).pixels.shape == (20, 26, 3)


def test_the_photograph_given_is_not_changed(network):
    values, tensor, photo = scene(20, 20, 3), torch.rand(3, 20, 20), images.from_array(scene(20, 20, 3))
    before = values.copy(), tensor.clone(), photo.pixels.copy()
    for given in (values, tensor, photo):
        retouch(given, network)
    assert np.array_equal(values, before[0])
    assert torch.equal(tensor, before[1])
    assert np.array_equal(photo.pixels, before[2])


def test_the_network_is_used_in_evaluation_mode_and_left_as_it_was():
    network = make().train()  # dropout would make two results differ
    values = scene(20, 20, 3)
    np.testing.assert_array_equal(retouch(values, network), retouch(values, network))
    assert network.training
    assert not retouch(torch.rand(3, 9, 9), network).requires_grad
    assert not look(values, network).requires_grad


def test_a_resnet_retouches_too():
    network = Retoucher(ResNet18Predictor(2), 9, identity_start=True)
    values = scene(20, 20, 3)
    np.testing.assert_array_equal(retouch(values, network), values)


def test_a_file_of_weights_gives_what_its_network_gives(network, tmp_path):
    weights.save(tmp_path / "g.safetensors", network)
    values = scene(20, 20, 3)
    for form in (values, as_tensor(values)):
        one = retouch(form, tmp_path / "g.safetensors", device="cpu")
        assert (one == retouch(form, network)).all()


def test_the_look_is_the_lut_that_retouches(network):
    values = scene(33, 41, 3)
    mixed = look(values, network)
    assert mixed.shape == (3, 9, 9, 9)
    by_hand = lut.apply(mixed, as_tensor(values)[None])[0]
    assert not torch.equal(mixed, mixed.clamp(0, 1))
    torch.testing.assert_close(by_hand.clamp(0, 1), expected(network, as_tensor(values)), rtol=0, atol=2e-5)
    assert torch.equal(look(images.from_array(values), network), mixed)
    assert not torch.allclose(look(255 - values, network), mixed)


# --- what is not a photograph -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photo", "complaint"),
    [
        (torch.full((3, 20, 20), torch.nan), "NaN or infinite"),
        (torch.rand(3, 20, 20) * 255, r"expected values in \[0, 1\], but they span"),
        (torch.rand(3, 20, 20) - 0.5, "they span"),
        (torch.zeros(3, 20, 20, dtype=torch.uint8), "floats in .* but got torch.uint8"),
        (torch.rand(1, 20, 20), r"RGB, but got the shape \(1, 20, 20\)"),
        (torch.rand(20, 20), r"got the shape \(20, 20\)"),
        (torch.zeros(0, 3, 20, 20), "no pixels"),
        (np.zeros((0, 20, 3), np.uint8), "no pixels"),
        (np.zeros((20, 20), np.uint8), r"\(H, W, 3\) of uint8, but got uint8 of the shape \(20, 20\)"),
        (np.zeros((20, 20, 4), np.uint8), "images.from_array makes a Photo"),
        (np.zeros((20, 20, 3), np.uint16), "but got uint16"),
        (np.full((20, 20, 3), np.nan, np.float32), "NaN or infinite"),
        (images.Photo(np.full((20, 20, 3), np.nan, np.float32)), "NaN or infinite"),
        (images.Photo(np.full((20, 20, 3), 1.5, np.float32), bits=16), r"they span \[1.5, 1.5\]"),
        ([[1, 2], [3, 4]], "cannot retouch a list"),
    ],
)
def test_what_is_not_a_photograph_is_named(network, photo, complaint):
    with pytest.raises(InputError, match=complaint):
        retouch(photo, network)


@pytest.mark.parametrize("photo", [scene(9, 9, 3), torch.rand(3, 9, 9)], ids=["array", "tensor"])
def test_a_network_that_has_diverged_is_named(photo):
    network = make()
    network.luts.data[1, 0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="its weights have diverged"):
        retouch(photo, network)


@pytest.mark.parametrize("device", ["cuda:99", "quantum"])
def test_a_device_that_is_not_there_is_named(network, device):
    with pytest.raises(InputError, match=f"device is '{device}', which is not there"):
        retouch(scene(9, 9, 3), network, device=device)


# --- a folder ---------------------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path):
    """A folder of photographs of several kinds, with things beside them that are none."""
    folder = tmp_path / "session"
    (folder / "raw").mkdir(parents=True)
    Image.fromarray(scene(20, 30, 3)).save(folder / "0_0.jpg")
    Image.fromarray(scene(30, 20, 3, seed=1)).save(folder / "0_1.PNG")
    images.write(folder / "1_0.tif", images.from_array(scene(20, 30, 3, dtype=np.uint16, seed=2)))
    Image.fromarray(scene(20, 30, 3, seed=3)).save(folder / "2_0.gif")
    (folder / "notes.txt").write_text("not a photograph")
    (folder / ".hidden.jpg").write_bytes(b"not one either")
    Image.fromarray(scene(9, 9, 3)).save(folder / "raw" / "9_9.png")
    return folder


ALL = ["0_0.jpg", "0_1.PNG", "1_0.tif", "2_0.gif"]


def run(session, network, **options):
    return retouch_folder(session, session.parent / "out", network, progress=False, **options)


def listed(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != JOURNAL)


def test_every_photograph_of_a_folder_is_retouched(session, network):
    assert run(session, network) == (ALL, [], {})
    out = session.parent / "out"
    assert listed(out) == ["0_0.jpg", "0_1.PNG", "1_0.tif", "2_0.png"]
    for source, result in (("0_1.PNG", "0_1.PNG"), ("1_0.tif", "1_0.tif"), ("2_0.gif", "2_0.png")):
        photo, wanted = images.read(out / result), retouch(session / source, network)
        assert photo.bits == wanted.bits
        np.testing.assert_array_equal(images.to_array(photo), images.to_array(wanted))


def test_one_format_for_all(session, network):
    run(session, network, suffix=".png")
    assert listed(session.parent / "out") == ["0_0.png", "0_1.png", "1_0.png", "2_0.png"]


def test_a_second_call_keeps_all_that_is_right(session, network):
    run(session, network)
    before = {path.name: path.stat().st_mtime_ns for path in (session.parent / "out").iterdir()}
    assert run(session, network) == ([], ALL, {})
    for name, time in before.items():
        if name != JOURNAL:
            assert (session.parent / "out" / name).stat().st_mtime_ns == time


def test_a_result_is_made_again_when_its_photograph_changed(session, network):
    run(session, network)
    Image.fromarray(scene(20, 30, 3, seed=7)).save(session / "2_0.gif")
    assert run(session, network).made == ["2_0.gif"]
    assert run(session, network).made == []


def test_all_results_are_made_again_when_the_weights_changed(session):
    run(session, make())
    assert run(session, make(seed=1)).made == ALL
    assert run(session, make(seed=1)).kept == ALL


@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_a_result_that_is_not_whole_is_made_again(session, network, harm):
    run(session, network)
    result = session.parent / "out" / "1_0.tif"
    whole = result.read_bytes()
    result.unlink()
    if harm == "cut":
        result.write_bytes(whole[:-9])
    assert run(session, network).made == ["1_0.tif"]
    assert result.read_bytes() == whole


def test_an_interrupted_folder_continues(session, network, monkeypatch):
    write, calls = images.write, []

    def interrupted(path, photo):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(path)
        write(path, photo)

    monkeypatch.setattr(images, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(session, network)
    monkeypatch.undo()
    assert listed(session.parent / "out") == ["0_0.jpg", "0_1.PNG"]
    assert run(session, network) == (ALL[2:], ALL[:2], {})


def test_a_line_of_the_journal_that_was_cut_short_does_not_count(session, network):
    run(session, network)
    journal = session.parent / "out" / JOURNAL
    journal.write_text(journal.read_text()[:-30])
    assert run(session, network).made == [ALL[-1]]
    assert [json.loads(line)["photo"] for line in journal.read_text().splitlines()] == ALL
    journal.write_bytes(b"[]\n5\n{}\n\xff nonsense")
    assert run(session, network).made == ALL


def test_a_journal_that_is_none_is_named(session, network):
    (session.parent / "out" / JOURNAL).mkdir(parents=True)
    with pytest.raises(InputError, match=rf"{JOURNAL} cannot be written: Is a directory"):
        run(session, network)


def test_a_file_that_was_there_before_is_replaced(session, network):
    (session.parent / "out").mkdir()
    (session.parent / "out" / "0_1.PNG").write_bytes((session / "0_1.PNG").read_bytes())
    assert run(session, network).made == ALL


def test_corrupt_photographs_are_named_and_the_rest_done(session, network):
    whole = (session / "0_0.jpg").read_bytes()
    (session / "0_0.jpg").write_bytes(whole[: len(whole) // 2])
    (session / "0_1.PNG").write_bytes(b"")
    made, kept, refused = run(session, network)
    assert (made, kept) == (ALL[2:], [])
    assert list(refused) == ALL[:2]
    assert "0_0.jpg is damaged or cut short" in refused["0_0.jpg"]
    assert "0_1.PNG is empty" in refused["0_1.PNG"]
    (session / "0_0.jpg").write_bytes(whole)
    assert run(session, network).made == ["0_0.jpg"]


def test_transparency_without_a_place_is_refused_by_name(session, network):
    images.write(session / "3_0.png", images.from_array(scene(9, 9, 4)))
    outcome = run(session, network, suffix=".jpg")
    assert len(outcome.made) == 4
    assert "transparency, which JPEG cannot hold" in outcome.refused["3_0.png"]


def test_two_photographs_with_one_result_are_named(session, network):
    Image.fromarray(scene(9, 9, 3)).save(session / "2_0.png")
    with pytest.raises(InputError, match=re.escape("2_0.gif and 2_0.png in")):
        run(session, network)
    assert not (session.parent / "out").exists()


@pytest.mark.parametrize(
    ("folder", "out", "suffix", "complaint"),
    [
        ("gone", "out", None, "gone is not a folder"),
        ("session/0_0.jpg", "out", None, "0_0.jpg is not a folder"),
        ("session/empty", "out", None, "holds no photographs"),
        ("session", "session", None, "give a folder that is not the photographs' own"),
        ("session", "session/notes.txt", None, "cannot take the results"),
        ("session", "session/notes.txt/out", None, "notes.txt/out cannot be written: Not a directory"),
        ("session", "out", ".raw", "suffix is '.raw'; results can be .jpg"),
    ],
)
def test_folders_that_do_not_fit_are_named(session, network, folder, out, suffix, complaint):
    root = session.parent
    (session / "empty").mkdir()
    with pytest.raises(InputError, match=re.escape(complaint)):
        retouch_folder(root / folder, root / out, network, suffix=suffix, progress=False)


def test_a_result_that_cannot_be_written_stops_at_once(session, network, monkeypatch):
    def full(path, photo):
        raise InputError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr(images, "write", full)
    with pytest.raises(InputError, match=r"0_0.jpg cannot be written: No space left"):
        run(session, network)


def test_progress_is_shown_unless_told_otherwise(session, network, capsys):
    retouch_folder(session, session.parent / "out", network)
    assert "Retouching: 100%" in capsys.readouterr().err
    run(session, network)
    assert capsys.readouterr().err == ""


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def saved(network, tmp_path):
    weights.save(tmp_path / "g.safetensors", network)
    return tmp_path / "g.safetensors"


def said(*words, capsys) -> tuple[int, str, str]:
    status = cli.main(["retouch", *map(str, words), "--device", "cpu"])
    return status, *capsys.readouterr()


def test_the_command_retouches_a_turned_photograph_from_file_to_file(network, saved, tmp_path, capsys):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(scene(20, 30, 3)).save(tmp_path / "in.png", exif=exif)
    out = tmp_path / "out.png"
    assert said(tmp_path / "in.png", "--weights", saved, "--out", out, capsys=capsys) == (0, f"{out}\n", "")
    upright = np.rot90(scene(20, 30, 3), -1).copy()
    np.testing.assert_array_equal(images.to_array(images.read(out)), retouch(upright, network))


def test_the_command_takes_an_official_pair_and_leaves_the_look(network, tmp_path, capsys):
    luts = {str(k): {"LUT": one.clone()} for k, one in enumerate(network.luts.detach())}
    torch.save(luts, tmp_path / "LUTs.pth")
    torch.save(network.predictor.state_dict(), tmp_path / "classifier.pth")
    images.write(tmp_path / "in.png", images.from_array(scene(20, 30, 3)))
    words = ["--weights", tmp_path / "classifier.pth", "--luts", tmp_path / "LUTs.pth"]
    words += ["--out", tmp_path / "out.png", "--cube", tmp_path / "look.cube"]
    assert said(tmp_path / "in.png", *words, capsys=capsys)[0] == 0
    mixed = cube.read(tmp_path / "look.cube")
    torch.testing.assert_close(mixed, look(scene(20, 30, 3), network), rtol=0, atol=1e-6)
    stored = images.to_array(images.read(tmp_path / "out.png"))
    np.testing.assert_array_equal(stored, lut.apply_8bit(mixed, scene(20, 30, 3)))


def test_the_command_does_a_folder_once_and_names_what_it_cannot(session, saved, capsys):
    out = session.parent / "out"
    words = [session, "--weights", saved, "--out", out]
    assert said(*words, capsys=capsys)[:2] == (0, f"4 retouched, 0 there already: {out}\n")
    (session / "1_0.tif").write_bytes(b"")
    Image.fromarray(scene(9, 9, 3)).save(session / "5_0.png")
    status, _, err = said(*words, capsys=capsys)
    assert status == 2
    assert err.splitlines()[-1].startswith("cvpr21: 1 could not be retouched (")
    assert "1_0.tif is empty" in err
    assert f"1 retouched, 3 there already: {out}" in err


@pytest.mark.parametrize(
    ("photo", "options", "complaint"),
    [
        ("gone.png", ["--out", "out.png"], "gone.png does not exist"),
        ("clear.png", ["--out", "out.jpg"], "transparency, which JPEG cannot hold; use .png"),
        ("clear.png", ["--out", "out.raw"], "cannot write a .raw file"),
        ("clear.png", ["--out", "nowhere/out.png"], "nowhere does not exist"),
        ("clear.png", ["--out", "out.png", "--weights", "clear.png"], "neither a PyTorch nor a safetensors"),
        ("clear.png", ["--out", "out.png", "--cube", "nowhere/look.cube"], "nowhere does not exist"),
        ("session", ["--out", "out", "--cube", "look.cube"], "each photograph has its own look"),
        ("session", ["--out", "session"], "give a folder that is not the photographs' own"),
    ],
)
def test_the_command_refuses_before_it_writes(session, saved, monkeypatch, capsys, photo, options, complaint):
    monkeypatch.chdir(session.parent)
    images.write(session.parent / "clear.png", images.from_array(scene(20, 20, 4)))
    before = sorted(session.parent.rglob("*"))
    words = options if "--weights" in options else ["--weights", saved, *options]
    status, _, err = said(photo, *words, capsys=capsys)
    assert status == 2
    assert complaint in err
    assert err.count("\n") == 1
    assert sorted(session.parent.rglob("*")) == before
