"""`kdmodels.images.archives`: honest zips work whoever made them; hostile ones leave nothing behind."""

import io
import random
import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from kdmodels.images import archives
from kdmodels.images.archives import MAX_FILES, ArchiveError, gather
from kdmodels.images.read import read_image


def png(seed=0, side=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.fixture
def out(tmp_path):
    (folder := tmp_path / "out").mkdir()
    return folder


@pytest.fixture
def make_zip(tmp_path):
    """Write a zip of (name or ZipInfo, bytes) pairs."""

    def make(*members, name="cases.zip", compression=zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / name, "w", compression) as archive:
            for member, data in members:
                archive.writestr(member, data)
        return tmp_path / name

    return make


def left_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_images_and_a_table_come_out_as_they_went_in(make_zip, tmp_path, out):
    single = tmp_path / "single.png"
    single.write_bytes(png(1))
    archive = make_zip(
        ("set/", b""),
        ("set/a.png", png(2)),
        ("set/deep/b.JPG", png(3)),
        ("set/cases.csv", b"file,label\n"),
        ("__MACOSX/set/._a.png", b"x"),
        ("set/.DS_Store", b"x"),
        ("set/Thumbs.db", b"x"),
    )
    found = gather([single, archive], out)
    assert found.problems == ()
    assert [f.name for f in found.files] == ["single.png", "a.png", "b.JPG", "cases.csv"]
    assert [f.place for f in found.files[1:]] == ["set/a.png", "set/deep/b.JPG", "set/cases.csv"]
    assert [f.is_table for f in found.files] == [False, False, False, True]
    assert [f.path.read_bytes() for f in found.images] == [png(1), png(2), png(3)]
    assert found.files[0].path == single and len(left_in(out)) == 3
    assert {path.parent for path in left_in(out)} == {out}
    assert not any(f.path.stem.startswith(("a", "b", "cases")) for f in found.files[1:])
    assert read_image(found.files[2].path).source_format == "PNG"  # the bytes decide, not ".JPG"


def test_equal_names_become_different_ones(make_zip, tmp_path, out):
    (same := tmp_path / "x.png").write_bytes(png(0))
    archive = make_zip(("one/x.png", png(1)), ("two/X.png", png(2)), ("x (2).png", png(3)))
    found = gather([same, archive], out)
    assert [f.name for f in found.files] == ["x.png", "x (2).png", "X (3).png", "x (2) (2).png"]
    assert [f.path.read_bytes() for f in found.files] == [png(i) for i in range(4)]


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "a/../../evil.png",
        "/tmp/evil.png",
        "..\\evil.png",
        "C:\\evil.png",
        "//h/e.png",
    ],
)
def test_a_path_outside_refuses_the_whole_zip(make_zip, out, tmp_path, name):
    before = set(tmp_path.rglob("*"))
    archive = make_zip(("good.png", png()), (zipfile.ZipInfo(name), png()))
    with pytest.raises(ArchiveError, match="path leads outside the zip"):
        gather([archive], out)
    assert set(tmp_path.rglob("*")) - before == {archive}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_refuse_the_whole_zip(make_zip, out, kind):
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, (kind | 0o777) << 16
    with pytest.raises(ArchiveError, match=r"a link or a device \(link.png\)"):
        gather([make_zip(("good.png", png()), (link, b"/etc/passwd"))], out)
    assert left_in(out) == []


def test_ten_thousand_files_are_refused_by_their_number(make_zip, out):
    archive = make_zip(*((f"{n}.png", b"") for n in range(10_000)))
    with pytest.raises(ArchiveError, match=f"there are 10,000 files, and at most {MAX_FILES}"):
        gather([archive], out)
    assert left_in(out) == []


def test_a_listing_of_any_length_is_not_read(make_zip, out, monkeypatch):
    monkeypatch.setattr(archives, "MAX_LISTING", 5_000)
    archive = make_zip(*((f"{n}.png", b"") for n in range(100)))
    with pytest.raises(ArchiveError, match="lists far more files"):
        gather([archive], out)


def test_the_number_counts_over_all_uploads_and_the_table_on_top(make_zip, out, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    first = make_zip(("a.png", png()), ("b.png", png()), ("c.csv", b""), name="1.zip")
    assert len(gather([first, make_zip(("c.png", png()), name="2.zip")], out).files) == 4
    second = make_zip(("c.png", png()), ("d.png", png()), name="2.zip")
    with pytest.raises(ArchiveError, match=r"With 2\.zip there are 4 files"):
        gather([first, second], out)
    with pytest.raises(ArchiveError, match="These are 5 files"):
        gather([first] * 5, out)


def test_a_bomb_is_refused_by_what_it_declares(make_zip, out):
    archive = make_zip(("a.png", png()), ("zeros.png", bytes(20 * 2**20)))
    assert archive.stat().st_size < 100_000
    with pytest.raises(ArchiveError, match=r"would unpack to over 100 times its size.*bomb"):
        gather([archive], out)
    assert left_in(out) == []


def overlapping_bomb(path, members):
    """A zip whose members all point at the same 8 MB of zeros (8 kB packed)."""
    zeros = bytes(8 * 2**20 - 1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", zeros)
    data = path.read_bytes()
    listing, ending = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[listing:ending]
    end = bytearray(data[ending:])
    end[8:16] = struct.pack("<HHL", members, members, len(entry) * members)
    path.write_bytes(data[:listing] + entry * members + bytes(end))


def lower_declared_size(path, size, crc=None):
    """Make both headers of a zip's only member say that it is smaller than it is."""
    data = bytearray(path.read_bytes())
    local, listing = 0, data.index(b"PK\x01\x02")
    data[local + 22 : local + 26] = data[listing + 24 : listing + 28] = struct.pack("<L", size)
    if crc is not None:
        data[local + 14 : local + 18] = data[listing + 16 : listing + 20] = struct.pack("<L", crc)
    path.write_bytes(bytes(data))


def test_members_that_share_their_bytes_are_refused(tmp_path, out):
    overlapping_bomb(tmp_path / "overlap.zip", 50)
    with pytest.raises(ArchiveError):
        gather([tmp_path / "overlap.zip"], out)
    assert left_in(out) == []


def test_what_comes_out_is_counted_whatever_was_declared(make_zip, out, monkeypatch):
    archive = make_zip(("zeros.png", bytes(20 * 2**20)))
    monkeypatch.setattr(archives._Limit, "check", skipping_first(archives._Limit.check))
    with pytest.raises(ArchiveError, match="unpacks to over 100 times"):
        gather([archive], out)
    assert left_in(out) == []


def skipping_first(check):
    calls = []

    def later(self, *rest):
        calls.append(rest)
        return None if len(calls) == 1 else check(self, *rest)

    return later


@pytest.mark.parametrize("crc", [None, zlib.crc32(bytes(1000))])
def test_a_member_larger_than_it_declares_never_unpacks_further(make_zip, out, crc):
    archive = make_zip(("zeros.png", bytes(20 * 2**20)))
    lower_declared_size(archive, 1000, crc)
    found = gather([archive], out)
    assert sum(path.stat().st_size for path in left_in(out)) <= 1000
    if crc is None:
        assert found.problems == ("zeros.png is damaged in the zip; make the zip again.",)


def test_the_total_counts_over_all_zips(make_zip, out, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 12_000)
    zips = [make_zip((f"{n}.png", png(n)), name=f"{n}.zip") for n in range(3)]
    assert len(png()) > 4_000
    assert len(gather(zips[:2], out).files) == 2
    with pytest.raises(ArchiveError, match=r"With 2\.zip there are over 0 MB of images"):
        gather(zips, out)
    assert len(left_in(out)) == 2  # those of the first call


def test_one_bad_member_is_a_problem_and_the_others_work(make_zip, out, tmp_path):
    inner = make_zip(("x.png", png()), name="inner.zip").read_bytes()
    archive = make_zip(
        ("good.png", png()),
        ("inner.zip", inner),
        ("disguised.png", inner),
        ("notes.txt", b"hello"),
        (f"{'d/' * 300}deep.png", png()),
        ("also.png", png(1)),
    )
    found = gather([archive], out)
    assert [f.name for f in found.files] == ["good.png", "also.png"]
    assert found.problems[:3] == (
        "inner.zip is an archive inside the zip; unpack it first.",
        "disguised.png is an archive; unpack it, or make one zip of the images.",
        "notes.txt is neither an image nor a CSV table, so it was left out.",
    )
    assert found.problems[3].startswith("…/d/d/") and "over 400 characters" in found.problems[3]
    assert len(left_in(out)) == 2


def test_an_encrypted_member_is_a_problem(make_zip, out):
    archive = make_zip(("secret.png", png()), ("open.png", png(1)))
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the flags of the first member, and those in the listing
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(data))
    found = gather([archive], out)
    assert [f.name for f in found.files] == ["open.png"]
    assert found.problems == ("secret.png is encrypted; make the zip without a password.",)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_not_used(make_zip, out, method):
    found = gather([make_zip(("a.png", png()), compression=method)], out)
    assert found.files == () and "a.png is packed by an unusual method" in found.problems[0]


def test_a_large_member_is_a_problem_by_its_declared_and_by_its_real_size(
    make_zip, out, monkeypatch
):
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1000)
    found = gather([make_zip(("a.png", png()))], out)
    assert found.files == () and "a.png is larger than" in found.problems[0]
    monkeypatch.setattr(archives, "_check_member", lambda *_: None)
    found = gather([make_zip(("a.png", png()))], out)
    assert found.files == () and "a.png is larger than" in found.problems[0]
    assert left_in(out) == []


def test_a_flipped_bit_is_found(make_zip, out):
    archive = make_zip(("a.png", png()), ("b.png", png(1)), compression=zipfile.ZIP_STORED)
    data = bytearray(archive.read_bytes())
    data[500] ^= 1
    archive.write_bytes(bytes(data))
    found = gather([archive], out)
    assert [f.name for f in found.files] == ["b.png"]
    assert found.problems == ("a.png is damaged in the zip; make the zip again.",)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"no zip at all", b"PK\x05\x06" + b"\xff" * 18]
)
def test_what_is_no_whole_zip_is_said_to_be_damaged(tmp_path, out, content):
    (broken := tmp_path / "broken.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"broken\.zip (is a damaged|lists far more)"):
        gather([broken], out)


def test_random_damage_never_ends_in_another_error(make_zip, out):
    archive = make_zip(("a/x.png", png(0, 8)), ("b.csv", b"file,label\n"), ("c/", b""))
    whole = archive.read_bytes()
    dice = random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(4, len(data))] = dice.randrange(256)
        archive.write_bytes(bytes(data))
        try:
            gather([archive], out)
        except ArchiveError:
            refused += 1
    assert 0 < refused < 300


def test_names_from_other_systems_are_read_as_they_were_meant(make_zip, out):
    decomposed = "Ro\u0308ntgen.png".encode()  # as macOS writes it: UTF-8, but not marked so
    stand_in = "x" * len(decomposed)
    archive = make_zip((stand_in, png()), ("set\\win.png", png(1)), ("a\u202egnp.png", png(2)))
    archive.write_bytes(archive.read_bytes().replace(stand_in.encode(), decomposed))
    found = gather([archive], out)
    assert found.problems == ()
    assert [f.name for f in found.files] == ["Röntgen.png", "win.png", "a�gnp.png"]
    assert found.files[1].place == "set/win.png"


def test_dicom_is_taken_under_any_name(make_zip, out):
    dicom = bytes(128) + b"DICM" + bytes(20)
    found = gather([make_zip(("1.2.840.1", dicom), ("IM0001", dicom), ("IM0002", b"text"))], out)
    assert [f.name for f in found.files] == ["1.2.840.1", "IM0001"]
    assert found.problems == ("IM0002 is neither an image nor a CSV table, so it was left out.",)


def test_single_uploads_are_judged_too(tmp_path, out):
    (tmp_path / "notes.txt").write_bytes(b"hello")
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b123")
    (tmp_path / "folder").mkdir()
    uploads = [tmp_path / name for name in ("notes.txt", "a.tar.gz", "folder", "gone.png")]
    found = gather(uploads, out)
    assert found.files == () and len(found.problems) == 4
    assert [problem.split()[0] for problem in found.problems] == [path.name for path in uploads]
    assert "is an archive" in found.problems[1] and "is not a file" in found.problems[2]
    assert all(path.exists() for path in uploads[:3])  # only what was unpacked is ever removed
