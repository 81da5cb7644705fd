"""While somebody reads what a swarm brings, what is read next is asked for first."""

import random
from pathlib import Path

import libtorrent as lt

from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.seeder import make_torrent
from imnetprep.sources.session import Network, open_session
from imnetprep.sources.swarm import _FIRST_OF_ALL, _WINDOW_PIECES, _Torrent
from imnetprep.sources.torrent import read_torrent

PIECE = 1 << 14
PIECES = 3 * _WINDOW_PIECES


def test_a_window_of_pieces_goes_before_all_others(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    path.write_bytes(random.Random(1).randbytes(PIECES * PIECE))
    torrent = read_torrent(make_torrent(path, piece_bytes=PIECE))
    parts = PartFiles(torrent, {0: tmp_path / "root" / "set.tar"})
    parts.folder.mkdir()
    with open_session(Network(listen="127.0.0.1:0", dht=False)) as session:
        steered = _Torrent(parts, session.add_torrent(parts.params()))

        def first_pieces() -> list[int]:
            steered.steer()
            priorities = steered.handle.get_piece_priorities()
            return [piece for piece, value in enumerate(priorities) if value == _FIRST_OF_ALL]

        assert first_pieces() == list(range(_WINDOW_PIECES))
        for piece in (0, 1, 2, 9):
            parts.add(piece)
        assert first_pieces()[-1] == _WINDOW_PIECES + 2, "it begins at the first gap"
        for piece in range(PIECES - 5):
            parts.add(piece)
        assert first_pieces()[-5:] == list(range(PIECES - 5, PIECES))
        assert not steered.handle.flags() & lt.torrent_flags.sequential_download
        for name in "ab":  # none of whom answers
            steered.handle.add_url_seed(f"http://127.0.0.1:1/{name}")
        steered.steer()
        assert steered.handle.flags() & lt.torrent_flags.sequential_download
