"""What trains a model by way of something else: an optimizer that has its parameters, a trainer that was given it, a pipeline of which it is a step.

A model whose training stays behind would answer like an untrained one, so a deploy asks about it. What is only likely is no reason to ask.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from .tree import root_name

#: What an object does to the one that it was made with: an optimizer's step, a trainer's run.
THROUGH = frozenset("step train fit fit_transform fine_tune fit_one_cycle run".split())
#: What reads trained weights: after it, nobody cares what training did before.
READS = frozenset("load_state_dict load_weights load_model".split())
#: What makes of a model another one that has its weights.
WRAPS = frozenset("compile DataParallel DistributedDataParallel DDP Sequential ModuleList ModuleDict get_peft_model prepare".split())
#: Functions that work on what they are given even where their value is taken: ``history = train_model(model, data)``.
_TRAINS = re.compile(r"(?:^|_)(?:train|fit|fine_?tune|optimi[sz]e)(?:_(?:model|net|network|loop|epochs?|one_epoch|step))?$")
_TRAINER = re.compile(r"(?<!cons)train|learner|finetun", re.IGNORECASE)
#: An object, or a module, that trains what its methods are given.
_TRAINING = re.compile(r"trainer|learner|engine|train|util|loop", re.IGNORECASE)
_PIPELINES = frozenset("make_pipeline Pipeline make_union FeatureUnion ColumnTransformer make_column_transformer".split())
_MODEL_KEYWORDS = frozenset("model module net network learner estimator policy".split())
_MODEL = re.compile(r"model|net|learner|estimator|classifier|clf|regressor|policy|agent|module", re.IGNORECASE)
#: What is called like a model and is what models are known by.
_OF_MODELS = re.compile(r"(?:names?|paths?|files?|dirs?|ids?|keys?|urls?|labels?|types?|configs?|params?|grids?)$", re.IGNORECASE)
_PARAMETERS = frozenset({"parameters", "named_parameters"})
#: What a model's weights are called where a function computes how to change them.
_WEIGHTS = frozenset({"trainable_variables", "trainable_weights"})
#: What a trainer is given first where it is not the model.
_SETTINGS = re.compile(r"cfg|conf|args|param|option|setting|hyper|^h$|dls|data|loader|path|url|dir", re.IGNORECASE)


def is_training(function: str) -> bool:
    """Whether a function of this name works on its arguments, as far as a name tells."""
    return bool(_TRAINS.search(function))


def trained_by(maker: ast.Call) -> list[str]:
    """What the object that this call makes trains: whose parameters it was given, or the model that a trainer, the steps that a pipeline was."""
    owners = (part.func for part in ast.walk(maker) if isinstance(part, ast.Call) and _method(part) in _PARAMETERS)
    if found := list(dict.fromkeys(filter(None, map(root_name, owners)))):
        return found
    made = _method(maker) or getattr(maker.func, "id", "")
    if made in _PIPELINES:
        return _names(maker.args)
    if not _TRAINER.search(made):
        return []
    return _models(maker) or [name for name in _names(maker.args[:1]) if not _SETTINGS.search(name)]


def trained_through(call: ast.Call, makers: Sequence[ast.Call]) -> list[str]:
    """What a method that is called on an object trains, by how the object was made."""
    if _method(call) not in THROUGH or is_mode_switch(call):
        return []
    return [name for maker in makers for name in trained_by(maker)]


def trained_with(call: ast.Call, views: dict[str, set[str]]) -> list[str]:
    """What a call trains of what it is given: ``trainer.fit(model, data)``, ``train(model)``. ``views``: of what names are parts."""
    method = _method(call)
    if not method:
        return _models(call, views) if is_training(getattr(call.func, "id", "")) else []
    assert isinstance(call.func, ast.Attribute)
    of = call.func.value
    made = _method(of) or getattr(of.func, "id", "") if isinstance(of, ast.Call) else ""
    if method in ("fit", "train") and (_TRAINER.search(made) or re.search("trainer|learner", root_name(of), re.IGNORECASE)):
        named = [keyword.value for keyword in call.keywords if keyword.arg in _MODEL_KEYWORDS]
        return _names(named or call.args[:1])
    return _models(call, views) if is_training(method) and _TRAINING.search(root_name(of)) else []


def trained_by_gradients(statements: Sequence[ast.stmt], call: ast.Call) -> list[str]:
    """Whose weights an optimizer is told to change: ``optimizer.apply_gradients(zip(gradients, model.trainable_variables))``."""
    if (method := _method(call)) not in ("apply_gradients", "minimize", "apply"):
        return []
    where: Sequence[ast.AST] = call.args if method == "apply" else statements
    weights = (part for node in where for part in ast.walk(node) if isinstance(part, ast.Attribute) and part.attr in _WEIGHTS)
    return list(dict.fromkeys(filter(None, map(root_name, weights))))


def perhaps_trained(calls: Sequence[ast.Call]) -> Iterator[ast.Call]:
    """In a loop whose loss goes backward through models that nobody sees an optimizer get: the calls of what is called like one."""
    if {"backward", "step"} <= {_method(call) for call in calls} and not any(_method(call) in _PARAMETERS for call in calls):
        yield from (call for call in calls if isinstance(call.func, ast.Name) and _MODEL.search(call.func.id))


def reads_weights(call: ast.Call) -> bool:
    """Whether it reads trained weights, not those of a moment ago (``model.load_state_dict(stopper.best_state)``)."""
    return _method(call) in READS and not any(isinstance(argument, ast.Attribute) for argument in call.args)


def wraps(call: ast.Call) -> bool:
    """Whether what it gives has the weights of what it is given."""
    return (_method(call) or getattr(call.func, "id", "")) in WRAPS


def is_mode_switch(call: ast.Call) -> bool:
    """``model.train(False)``."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return _method(call) == "train" and len(given) == 1 and isinstance(given[0], ast.Constant) and isinstance(given[0].value, bool)


def _models(call: ast.Call, views: dict[str, set[str]] | None = None) -> list[str]:
    """The model among the arguments: the one that is called so, or is one of what is called so."""
    named = [keyword.value for keyword in call.keywords if keyword.arg in _MODEL_KEYWORDS]
    wholes = {name: [whole for whole in (views or {}).get(name, ()) if not _OF_MODELS.search(whole)] for name in _names(call.args)}
    return _names(named) or [name for name in _names(call.args) if any(map(_MODEL.search, (name, *wholes[name])))]


def _names(nodes: Sequence[ast.AST]) -> list[str]:
    return list(dict.fromkeys(part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)))


def _method(node: ast.AST) -> str:
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
