"""The reference files that figures of the documents stand against, each with its SHA-256.

They lie beside the repository, in ``../shared/data``, and are not part of it; nothing of the product is fitted to them.
A file that has changed is another reference: benchmarks refuse it, and a test of the house says so.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
SHA256 = {
    "lattice/PIMMS.seq": "379674746b5fefe32786e3d5d2a5e3655e800d16a2e98def1efaacc529ea8cd6",
    "lattice/pimms_optics.str": "4112623009094d2fb4c88aaa35034f7436ca2c2b6b9c57af7ff5ad8eed0b6a21",
    "plans/DCPT_plan01_sobp_1Gy_Eclipse.dcm": "c175a835a745d34f1e1d1b51c48e159928f8c7f074b8e625095609cb7a42d0b0",
    "plans/DCPT_plan02_mono160_Eclipse.dcm": "5c7bdd87394197e19bcefdbc516b68988fd97efd67e88e2a7684421e32630c19",
    "plans/DCPT_plan04_ramp_middle_RayStation.dcm": "34793ec0d783ac22780fc75f4db0f40181483430882b17c05fdf623e19833187",
    "plans/DCPT_plan05_sobp3d_RayStation.dcm": "fe36c49dbb869d38b96645b3df12961ee3e7dee6bc97c884ccae14a816e65737",
    "plans/TST003001.exec": "87cddf823a68acaac559ae69c5c38840aff19524d527ded5b0ffaf00f8e71a00",
    "plans/pymchelper_TR3QA_4fields_Eclipse.dcm": "c2365d3852d7b5b9c76d83b73326e802c2259f573060a70802338a6601e56988",
    "plans/topasmc_rtip_demo.dcm": "41a52ca8ccaceef8e3730ca1bd42e5d028c4faf30754e569b1ca97c6da7f72f3",
    "plans/tst003001.bev.gd": "4de46deaed550c658fb7444d987f8cbce52829a093ffa42aaae622ff7e0f99f0",
    "plans/tst003001.rst": "d75884b9b0abd07d07bd27597c90acd3d0d12b328806facd35b59e23501ec685",
    "tables/LICENSE_BSD3": "8dc063626d96d0452bebd7d4a69a8d1b68fb17cc24350d3b18115457ca760b91",
    "tables/carbon_Generic.mat": "45e3be539717b0bab8630632a27e32b0800ae983fc397ffd9b203fb3d2d0754d",
    "tables/matrad_carbon_generic_peaks.csv": "0259de09991294a451719dca1b58af26fe9e2ab352bfd955d5703a19a39d169d",
    "tables/range_c12_water.csv": "329d5944a31307e51e048849804eff3de2223dcf950e45b39a2ed4725e03c132",
    "tables/range_p_water.csv": "036f05d6e38099e6b9e5049eefe62804106ffa7313acd51e47b74535ade26cc9",
}


def changed(folder: Path = FOLDER) -> list[str]:
    """Files of the list that are missing in the folder, or have other bytes than the documents' figures came from."""
    found = []
    for name, wanted in SHA256.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            found.append(f"{name} is another file")
    return found


def require() -> None:
    """RuntimeError unless all reference files are there, unchanged."""
    if wrong := changed():
        raise RuntimeError(f"../shared/data: {'; '.join(wrong)}")
