"""Lungs in other surroundings: a mitigation of the shortcut that the shortcut audit finds.

Where class and source go together, the surroundings of the lungs tell the class. A film that shows
its lungs within the surroundings of a film of another class, with its own label, makes them useless:
the mixed backgrounds of Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object
Recognition", ICLR 2021, as an augmentation.
"""

import torch
from torch import Tensor

from train.data.blanking import has_lungs, swap_box
from train.data.manifest import DataError, read_mask
from train.data.pixels import PixelStore


class Surroundings:
    """Draws a film of a store with its lungs' box moved into another film, for a share of draws.

    share: of the draws of films that have usable lung masks. Other films stay as they are, and
    donors have masks too. Raises `DataError` where fewer than two classes have films with masks.
    """

    def __init__(self, store: PixelStore, share: float) -> None:
        self.store, self.share = store, share
        self.labels = [sample.label for sample in store.samples]
        self.masks = {
            i: read_mask(sample.mask, store.size)
            for i, sample in enumerate(store.samples)
            if has_lungs(sample)
        }
        classes = {self.labels[i] for i in self.masks}
        if len(classes) < 2:
            raise DataError(
                "swap_surroundings needs films with lung masks of two classes or more, but the "
                f"training split has them of {len(classes)}; leave the key out of the recipe."
            )
        self.donors = {
            label: [i for i in self.masks if self.labels[i] != label] for label in classes
        }

    def draw(self, index: int) -> Tensor:
        """(C, S, S) uint8; draws from torch's own random stream."""
        film = self.store[index]
        if index not in self.masks or torch.rand(()) >= self.share:
            return film
        donors = self.donors[self.labels[index]]
        around = donors[int(torch.randint(len(donors), ()))]
        swapped = swap_box(
            self.store[around].numpy(), self.masks[around], film.numpy(), self.masks[index]
        )
        return torch.from_numpy(swapped)
