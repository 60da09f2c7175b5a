"""Whole trainings as functions, by the names in `trainers.catalogue.RECIPES`."""

from __future__ import annotations

from collections.abc import Mapping

from trainers.recipes.cartpole_ppo import cartpole_ppo
from trainers.recipes.digits_cnn import digits_cnn
from trainers.recipes.digits_gan import digits_gan
from trainers.recipes.hf_causal_lm import hf_causal_lm
from trainers.recipes.recommender import recommender
from trainers.recipes.tabular import tabular
from trainers.recipes.text_classification import text_classification
from trainers.recipes.text_rnn import text_rnn
from trainers.recipes.text_transformer import text_transformer
from trainers.tasks.task import MakeTask

MAKERS: Mapping[str, MakeTask] = {
    "digits_cnn": digits_cnn,
    "recommender": recommender,
    "digits_gan": digits_gan,
    "cartpole_ppo": cartpole_ppo,
    "hf_causal_lm": hf_causal_lm,
    "tabular": tabular,
    "text_classification": text_classification,
    "text_rnn": text_rnn,
    "text_transformer": text_transformer,
}
