"""Teaching: guess the label of each case, alone or as a class, before the models show theirs."""

import html
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from kdmodels.doubts import doubts_of
from kdmodels.examples import examples
from kdmodels.explain import overlay
from kdmodels.images import ImageError, read_image
from kdmodels.predict import answer
from kdmodels.tasks import Task, get_task
from page import words
from page.heatmaps import heatmaps
from page.pairs import ROLES, pair
from page.parts import QUICK, REDRAW, WORK, film, model_choice, unpacking_folder
from page.sessions import SESSIONS, Superseded
from page.teach.cases import Case, CaseSet, disagreements, order, read_cases
from page.teach.score import Score, Votes
from page.words import TROUBLE

WELCOME = '<p class="verdict hint">Choose a case set, or take the examples, then press Start.</p>'
LESSON = "lesson"  # the work that a newer request ends


@dataclass
class Lesson:
    """A round of cases in one browser tab.

    said: (teacher, student) class ids by case name. folder: where the images are kept meanwhile.
    """

    task: Task
    teacher: str
    cases: tuple[Case, ...]
    number: int = 0
    revealed: bool = False
    votes: Votes | None = None
    score: Score = field(default_factory=Score)
    said: dict[str, tuple[str, str]] = field(default_factory=dict)
    folder: TemporaryDirectory | None = None

    @property
    def case(self) -> Case:
        return self.cases[self.number]


class Shown(NamedTuple):
    """What an event of the Teach tab changes there; all else stays as it is."""

    told: Any = gr.skip()
    picture: Any = gr.skip()
    question: Any = gr.skip()
    choice: Any = gr.skip()
    score: Any = gr.skip()
    teacher_map: Any = gr.skip()
    student_map: Any = gr.skip()
    next: Any = gr.skip()
    vote: Any = gr.skip()
    reveal: Any = gr.skip()


def example_cases(task: Task) -> CaseSet:
    """The synthetic examples as cases with labels."""
    cases = tuple(Case(e.path.name, e.path, e.class_id, e.caption) for e in examples(task.id))
    problems = () if cases else ("There are no examples of this modality; choose a case set.",)
    return CaseSet(cases, problems)


def _name(task: Task, class_id: str | None) -> str:
    return task.class_names[task.class_ids.index(class_id)] if class_id else "not known"


def _answers(lesson: Lesson, case: Case) -> tuple[str, str]:
    if case.name not in lesson.said:
        pixels = read_image(case.path).pixels
        said = (int(answer(c, pixels).argmax()) for c in pair(lesson.task.id, lesson.teacher))
        lesson.said[case.name] = tuple(lesson.task.class_ids[k] for k in said)
    return lesson.said[case.name]


def start(
    request: gr.Request, uploads: list[str] | None, task_id: str, teacher: str, only_differ: bool
) -> Iterator[Shown]:
    """Begin with the uploaded case set, or the examples."""
    session = SESSIONS.of(request)
    turn = session.take_turn(LESSON)
    task = get_task(task_id)
    place = None
    try:
        if uploads:
            place = unpacking_folder()
            found = read_cases(_kept(uploads, Path(place.name)), task, Path(place.name))
        else:
            found = example_cases(task)
        cases = order(found.cases, random.SystemRandom().randrange(2**32))
        problems = list(found.problems)
        lesson = Lesson(task, teacher, cases, folder=place)
        usable, drawn = [], time.perf_counter()
        for number, case in enumerate(cases):
            turn.check()
            try:
                _answers(lesson, case) if only_differ else read_image(case.path)
                usable.append(case)
            except ImageError as error:
                problems.append(f"{case.name}: {error}")
            if time.perf_counter() - drawn > REDRAW:
                drawn = time.perf_counter()
                what = "Looking for disagreements" if only_differ else "Reading"
                note = f"{what}: {number + 1} of {len(cases)} cases."
                yield _blank(words.message("note", note))
        cases = tuple(usable)
        if only_differ:
            cases = disagreements(
                cases, *({n: s[k] for n, s in lesson.said.items()} for k in (0, 1))
            )
            if not cases:
                problems.append("Teacher and student agree on every case.")
        told = _listed(problems)
        if not cases:
            yield _blank(told)
            return
        lesson.cases, lesson.votes = cases, Votes.none(task)
        first = _shown(lesson, told)
        with session.lock:
            turn.check()
            session.keep(lesson)
        yield first
    except Superseded:
        yield Shown()
    except TROUBLE as error:
        yield _blank(words.trouble(error))


def _kept(uploads: list[str], folder: Path) -> list[Path]:
    """Copies of the uploads, which would be removed after an hour; a lesson may last longer."""
    kept = []
    for number, upload in enumerate(map(Path, uploads)):
        copy = folder / f"upload-{number}" / upload.name
        copy.parent.mkdir()
        kept.append(Path(shutil.copyfile(upload, copy)))
    return kept


def _listed(problems: list[str]) -> str:
    if not problems:
        return ""
    rows = "".join(f"<li>{html.escape(p)}</li>" for p in problems)
    return f'<div class="message note" role="status"><ul>{rows}</ul></div>'


def _buttons(*, next: bool, guess: bool) -> dict[str, gr.Button]:
    """Fields of `Shown`: which buttons can be pressed."""
    return {
        "next": gr.Button(interactive=next),
        "vote": gr.Button(interactive=guess),
        "reveal": gr.Button(interactive=guess),
    }


def _blank(told: str) -> Shown:
    """No case."""
    return Shown(
        told,
        picture=None,
        question=WELCOME,
        choice=gr.Radio(visible=False),
        score="",
        teacher_map=None,
        student_map=None,
        **_buttons(next=False, guess=False),
    )


def _shown(lesson: Lesson, told: Any) -> Shown:
    """The case to guess, with everything that gives it away hidden."""
    case = f"Case {lesson.number + 1} of {len(lesson.cases)}. What is it?"
    choices = list(zip(lesson.task.class_names, lesson.task.class_ids, strict=True))
    pixels = read_image(lesson.case.path).pixels
    return Shown(
        told,
        picture=gr.Image(pixels, label=f"Case {lesson.number + 1}"),
        question=f'<p class="verdict" role="status">{case}</p>{_tally(lesson)}',
        choice=gr.Radio(choices, value=None, visible=True),
        score=_score(lesson),
        teacher_map=None,
        student_map=None,
        **_buttons(next=False, guess=True),
    )


def _tally(lesson: Lesson) -> str:
    if not lesson.votes or not lesson.votes.total:
        return ""
    said = ", ".join(f"{_name(lesson.task, c)} {n}" for c, n in lesson.votes.counts.items() if n)
    return f'<p class="legend">Votes: {html.escape(said)}.</p>'


def _score(lesson: Lesson) -> str:
    if not lesson.score.rounds:
        return ""
    players = (("You", "human"), ("Teacher", "teacher"), ("Student", "student"))
    tallies = [(name, lesson.score.tally(player)) for name, player in players]
    entries = "".join(
        f"<div><dt>{name}</dt><dd>{t.right} of {t.of}</dd></div>" for name, t in tallies
    )
    return f'<dl class="numbers">{entries}</dl>'


def vote(request: gr.Request, choice: str | None) -> Shown:
    """One more vote of a class."""
    lesson = SESSIONS.of(request).get(Lesson)
    if lesson is None or lesson.revealed or not choice:
        return Shown()
    lesson.votes = lesson.votes.with_vote(choice)
    case = f"Case {lesson.number + 1} of {len(lesson.cases)}. Next vote?"
    question = f'<p class="verdict" role="status">{case}</p>{_tally(lesson)}'
    return Shown(question=question, choice=gr.Radio(value=None))


def reveal(request: gr.Request, choice: str | None) -> Iterator[Shown]:
    """Show label, both answers, the score, then the heatmaps."""
    session = SESSIONS.of(request)
    lesson = session.get(Lesson)
    if lesson is None or lesson.revealed:
        yield Shown()
        return
    turn = session.take_turn(LESSON)
    try:
        said = _answers(lesson, lesson.case)
        checked = read_image(lesson.case.path)
        guess = lesson.votes.guess if lesson.votes.total else choice
        lesson.score = lesson.score.with_answer(lesson.case, guess, *said)
        lesson.revealed = True
        yield Shown(
            question=_verdict(lesson, guess, said) + words.doubts(doubts_of(lesson.task, checked)),
            score=_score(lesson),
            teacher_map=None,
            student_map=None,
            **_buttons(next=lesson.number + 1 < len(lesson.cases), guess=False),
        )
        models = dict(zip(ROLES, pair(lesson.task.id, lesson.teacher), strict=True))
        classes = dict(zip(ROLES, said, strict=True))
        for role, step in heatmaps(models, checked.pixels, classes, exact=False, check=turn.check):
            label = f"{role.capitalize()}: {_name(lesson.task, classes[role])}"
            drawn = gr.Image(overlay(checked.pixels, step.heatmap), label=label)
            turn.check()
            yield Shown(**{f"{role}_map": drawn})
    except Superseded:
        yield Shown()
    except TROUBLE as error:
        yield Shown(question=words.trouble(error))


def _verdict(lesson: Lesson, guess: str | None, said: tuple[str, str]) -> str:
    case, task = lesson.case, lesson.task
    parts = [f"It is labelled {_name(task, case.label)}."] if case.label else ["It has no label."]
    parts += [f"You said {_name(task, guess)}."] if guess else ["You did not guess."]
    parts.append(f"The teacher says {_name(task, said[0])}, the student {_name(task, said[1])}.")
    note = f'<p class="legend">{html.escape(f"{case.name}. {case.note}")}</p>'
    sentence = html.escape(" ".join(parts))
    return f'<p class="verdict" role="status">{sentence}</p>{_tally(lesson)}{note}'


def go_on(request: gr.Request) -> Shown:
    """The next case; the score goes on."""
    session = SESSIONS.of(request)
    lesson = session.get(Lesson)
    if lesson is None or lesson.number + 1 >= len(lesson.cases):
        return Shown()
    session.take_turn(LESSON)
    now = lesson.number, lesson.revealed, lesson.votes
    lesson.number, lesson.revealed = lesson.number + 1, False
    lesson.votes = Votes.none(lesson.task)
    try:
        return _shown(lesson, gr.skip())
    except TROUBLE as error:
        lesson.number, lesson.revealed, lesson.votes = now
        return Shown(told=words.trouble(error))


def build() -> None:
    """Lay the tab out and wire its events."""
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            task, teacher = model_choice("teach-task")
            files = gr.File(
                label="Case set (none: the examples)",
                file_count="multiple",
                elem_id="teach-files",
                height=140,
            )
            gr.HTML(
                "<p class='legend'>Images, or a zip of images, with a CSV of the columns file, label "
                "and note.</p>",
                padding=False,
            )
            differ = gr.Checkbox(False, label="Only cases on which the models differ")
            begin = gr.Button("Start", variant="primary", elem_id="teach-start")
            told = gr.HTML(elem_id="teach-message", padding=False)
            score = gr.HTML(elem_id="teach-score", padding=False)
        with gr.Column(scale=7, min_width=300):
            question = gr.HTML(WELCOME, elem_id="teach-question", padding=False)
            choice = gr.Radio(visible=False, label="Your answer", elem_id="teach-choice")
            with gr.Row():
                voting = gr.Button("Add this vote", interactive=False, elem_id="teach-vote")
                showing = gr.Button(
                    "Reveal", variant="primary", interactive=False, elem_id="teach-reveal"
                )
                more = gr.Button("Next case", interactive=False, elem_id="teach-next")
            picture = film("Case", "teach-case", 420)
            with gr.Row():
                maps = [film(role.capitalize(), f"teach-{role}", 320) for role in ROLES]
    shown = list(Shown(told, picture, question, choice, score, *maps, more, voting, showing))
    begin.click(start, [files, task, teacher, differ], shown, **WORK)
    voting.click(vote, choice, shown, **QUICK)
    showing.click(reveal, choice, shown, **WORK)
    more.click(go_on, None, shown, **WORK)
