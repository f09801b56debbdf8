"""Client corrections: what keeps the local training of a federation's clients near the global model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from qio_envs.api import ConfigError
from qio_rllib.learners.common import as_module
from qio_rllib.mapping_settings import MappingSettings, is_number

if TYPE_CHECKING:
    from qio_rllib.federated.layout import ParameterLayout

FEDPROX, SCAFFOLD, FEDKL = "fedprox", "scaffold", "fedkl"


@dataclasses.dataclass(frozen=True)
class CorrectionSettings(MappingSettings):
    """``correction={...}``: how a client's training is corrected.

    Attributes:
        type: "fedprox" pulls the weights towards the global ones (Li et al., 2020), "scaffold" replaces the client's
            drift by that of all clients (Karimireddy et al., 2020), "fedkl" pulls the policy towards the global one
            (Xie and Song, 2022).
        coefficient: Above 0: mu of FedProx, or the weight of FedKL's term, in units of the loss for a nat; None for
            SCAFFOLD, which has none.
    """

    key = "correction"

    type: str | None = None
    coefficient: float | None = None

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is checked; see `MappingSettings`."""
        weight = self.coefficient
        if self.type == SCAFFOLD:
            allowed, fits = f"none with {SCAFFOLD}", weight is None
        else:
            allowed = "a finite number above 0"
            fits = weight is not None and is_number(weight) and 0 < weight < float("inf")
        return [
            ("type", f"{FEDPROX}, {SCAFFOLD} or {FEDKL}", self.type in (FEDPROX, SCAFFOLD, FEDKL)),
            ("coefficient", allowed, fits),
        ]

    def check_learner(self, learner_class: Any) -> None:
        """Check that a class of Learners takes the correction.

        Raises:
            ConfigError: It does not.
        """
        taken = getattr(learner_class, "corrections", ())
        if self.type not in taken:
            raise ConfigError(
                f"{self.key}.type: {learner_class.__name__} takes {' or '.join(taken) or 'none'}, got {self.type}"
            )


class ClientCorrection:
    """Corrects the gradients and the loss of a Learner that trains for one client after the other.

    FedProx adds ``mu (w - w_global)`` to the gradients, SCAFFOLD ``c - c_i`` (both before they are clipped), FedKL the
    term ``coefficient E KL(pi_global || pi)`` to the loss. Parameters outside the layout, which are frozen or stay with
    their client, are left alone, and so are those on which a loss does not depend.

    Args:
        settings: What is asked for.
        learner: Built, in this process; `learner.correction` is set by whoever trains with it.

    Raises:
        ConfigError: The Learner does not take the correction.
    """

    def __init__(self, settings: CorrectionSettings, learner: TorchLearner) -> None:
        settings.check_learner(type(learner))
        self.settings = settings
        self.coefficient = settings.coefficient or 0.0  # SCAFFOLD has none
        self._learner = learner
        self._anchors: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._variates: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._shifts: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._sums: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._steps: dict[torch.nn.Parameter, int] = {}
        self._references: Mapping[str, Any] = {}

    def begin(
        self,
        layout: ParameterLayout,
        weights: np.ndarray,
        server_variate: np.ndarray | None = None,
        variate: np.ndarray | None = None,
    ) -> None:
        """Begin the training of a client, whose weights have just been put into the Learner's modules.

        Args:
            layout: Of `as_module` of the Learner's modules.
            weights: Global weights, ``[d]``.
            server_variate: SCAFFOLD's ``c``, ``[d]``; None for zeros.
            variate: SCAFFOLD's ``c_i`` of this client, ``[d]``; None for zeros.

        Raises:
            ConfigError: The modules have other parameters than the layout.
            ValueError: A vector of another size.
        """
        parameters = layout.parameters(as_module(self._learner.module))

        def parts(vector: np.ndarray | None) -> dict[torch.nn.Parameter, torch.Tensor]:
            if vector is None:
                return {parameter: torch.zeros_like(parameter) for parameter in parameters}
            if vector.shape != (layout.size,):
                raise ValueError(f"correction: expected {layout.size} numbers, got shape {vector.shape}")
            arrays = layout.arrays(vector).values()
            return {
                parameter: torch.tensor(array, dtype=parameter.dtype, device=parameter.device)
                for parameter, array in zip(parameters, arrays, strict=True)
            }

        if self.settings.type == FEDPROX:
            self._anchors = parts(weights)
        elif self.settings.type == SCAFFOLD:
            server, self._variates = parts(server_variate), parts(variate)
            self._shifts = {key: server[key] - self._variates[key] for key in parameters}
            self._sums = parts(None)
            self._steps = dict.fromkeys(parameters, 0)
        else:
            self._references = {
                module_id: copy.deepcopy(module.unwrapped()).requires_grad_(False)
                for module_id, module in self._learner.module.items()
            }

    def correct(self, gradients: Mapping[torch.nn.Parameter, torch.Tensor]) -> None:
        """Correct gradients of a loss in place, before they are clipped, by the parameters that a step is taken for."""
        with torch.no_grad():
            for parameter, gradient in gradients.items():
                if parameter in self._anchors:
                    gradient.add_(parameter - self._anchors[parameter], alpha=self.coefficient)
                if parameter in self._shifts:
                    self._sums[parameter] += gradient
                    self._steps[parameter] += 1
                    gradient.add_(self._shifts[parameter])

    def reference(self, module_id: str) -> Any:
        """Return FedKL's frozen copy of a module as it was at `begin`; None without."""
        return self._references.get(module_id)

    def mean_gradient(self) -> np.ndarray:
        """Return SCAFFOLD's new ``c_i``: the mean over gradient steps of the loss's gradients, float32 ``[d]``.

        They are taken before they are corrected and clipped. A parameter for which no step was taken keeps its number.

        With plain gradient descent of the rate ``lr`` and no clipping a step is ``y <- y - lr (g + c - c_i)``, so that
        ``K`` steps from the global weights ``x`` give ``x - y = lr (sum g + K (c - c_i))``, and the mean of ``g`` is
        ``c_i - c + (x - y) / (K lr)``: option II of Karimireddy et al., 2020, algorithm 1. The mean is
        defined for other optimizers as well.
        """
        means = [
            total / self._steps[parameter] if self._steps[parameter] else self._variates[parameter]
            for parameter, total in self._sums.items()
        ]
        return torch.cat([mean.reshape(-1).cpu().to(torch.float32) for mean in means]).numpy()
