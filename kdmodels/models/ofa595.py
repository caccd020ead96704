"""OFA-595: the Once-for-All subnet `flops@595M_top1@80.0_finetune@75`, built from its net.config.

Source: Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment",
ICLR 2020. The configuration is stored beside this file because the downloader inside the `ofa`
package writes to the working directory and leaves lock files behind; it is never called.
"""

import copy
import json
from functools import cache
from importlib.resources import files

from torch import nn


@cache
def _net_config() -> dict:
    return json.loads(files("kdmodels.models").joinpath("ofa595_net.config.json").read_text())


def build_ofa595(num_classes: int) -> nn.Module:
    """Build OFA-595 with random weights (He initialisation on fan-out, as `ofa` trains it).

    Takes (N, 3, H, W) images, best at 236 x 236, and returns (N, num_classes) logits.
    """
    from ofa.imagenet_classification.networks import get_net_by_name  # late: imports torchvision
    from ofa.utils import init_models

    config = copy.deepcopy(_net_config())
    config["classifier"]["out_features"] = num_classes
    net = get_net_by_name(config["name"]).build_from_config(config)
    init_models(net, model_init="he_fout")
    return net
