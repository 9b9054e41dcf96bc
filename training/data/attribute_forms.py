"""Ways to ask for an attribute {a} of [X], and what only looks so, in many languages."""

# ruff: noqa: E501 - lists of templates read best as they stand

from __future__ import annotations

FORMS: dict[str, tuple[str, ...]] = {
    "en": (
        "What is the {a} of [X]?", "what's [X]'s {a}", "[X] {a}", "{a} of [X]", "{a} [X]?", "The {a} of [X] is",
        "Tell me the {a} of [X].", "[X]'s {a}?", "I'd like to know the {a} of [X], please", "{a} for [X]?",
        "Do you know [X]'s {a}?", "[X]: {a}", "Which {a} does [X] have?", "Could you look up the {a} of [X] for me?",
        "I'm filling in a form about [X] and need its {a}.", "regarding [X], what's the {a}", "[X] – {a}?",
    ),
    "de": (
        "Was ist {a} von [X]?", "{a} von [X]", "[X] {a}", "[X], {a}?", "Wie lautet {a} bei [X]?", "{a} bei [X]:",
        "Nenne mir bitte zu [X]: {a}.", "Weißt du, was bei [X] unter „{a}“ steht?", "[X] – {a}?", "{a} von [X] ist",
    ),
    "fr": (
        "Quel est {a} de [X] ?", "{a} de [X]", "[X] {a}", "[X], c'est quoi {a} ?", "{a} pour [X] ?",
        "Donne-moi, pour [X] : {a}.", "Sais-tu quel est {a} chez [X] ?", "{a} de [X] est", "[X] : {a} ?",
    ),
    "es": (
        "¿Cuál es {a} de [X]?", "{a} de [X]", "[X] {a}", "¿Me dices {a} de [X]?", "{a} para [X]?", "[X]: {a}",
        "Quisiera saber {a} de [X].", "sobre [X], ¿{a}?", "{a} de [X] es", "Dime, de [X], {a}",
    ),
    "it": (
        "Qual è {a} di [X]?", "{a} di [X]", "[X] {a}", "Mi dici {a} di [X]?", "[X]: {a}?", "{a} di [X] è",
        "Vorrei sapere {a} di [X].", "per [X], {a}?",
    ),
    "pt": (
        "Qual é {a} de [X]?", "{a} de [X]", "[X] {a}", "Pode me dizer {a} de [X]?", "[X]: {a}?", "{a} de [X] é",
        "Gostava de saber {a} de [X].", "sobre [X], {a}?",
    ),
    "nl": (
        "Wat is {a} van [X]?", "{a} van [X]", "[X] {a}", "Weet je {a} van [X]?", "[X]: {a}?", "{a} van [X] is",
        "Geef me {a} van [X].", "{a} bij [X]?",
    ),
    "pl": ("Jaki jest {a} [X]?", "[X] {a}", "{a}: [X]", "Podaj {a} dla [X].", "[X] – {a}?", "{a} w przypadku [X]?"),
    "cs": ("Jaký je {a} [X]?", "[X] {a}", "{a}: [X]", "[X] – {a}?", "Řekni mi {a} u [X]."),
    "sv": ("Vad är {a} för [X]?", "[X] {a}", "{a} för [X]", "[X]: {a}?", "Säg mig {a} för [X]."),
    "tr": (
        "[X] {a} nedir?", "[X] {a}", "[X] için {a}?", "[X] hakkında {a} ne?", "[X]: {a}", "Bana [X] için {a} söyler misin?",
    ),
    "ru": (
        "{a} [X]?", "[X] {a}", "Назови {a}: [X].", "Подскажите, пожалуйста, {a} ([X])", "[X] — {a}?", "Какое значение: {a}, [X]?",
        "{a} у [X]", "что известно: [X], {a}",
    ),
    "uk": ("{a} [X]?", "[X] {a}", "Підкажіть {a}: [X].", "[X] — {a}?", "{a} у [X]"),
    "zh": (
        "[X]的{a}是什么？", "[X]的{a}", "[X] {a}", "请问[X]的{a}是？", "告诉我[X]的{a}", "{a}：[X]", "查一下[X]的{a}", "[X]{a}是啥",
    ),
    "ja": (
        "[X]の{a}は何ですか？", "[X]の{a}は？", "[X] {a}", "[X]の{a}を教えて", "[X]の{a}", "{a}（[X]）は？", "[X]の{a}を知りたいです。",
    ),
    "ko": ("[X]의 {a}은(는) 무엇인가요?", "[X] {a}", "[X]의 {a}", "[X] {a} 알려줘", "[X] {a} 뭐야?"),
    "ar": (
        "ما هو {a} [X]؟", "{a} [X]", "[X] {a}", "أخبرني عن {a} [X]", "[X]: {a}؟", "أريد معرفة {a} الخاص بـ [X]", "ما {a} لدى [X]؟",
    ),
    "hi": (
        "[X] का {a} क्या है?", "[X] {a}", "[X] की {a} बताइए", "[X] का {a}", "मुझे [X] का {a} बताओ", "[X]: {a}?",
    ),
    "fa": ("{a} [X] چیست؟", "{a} [X]", "[X] {a}"),
    "he": ("מה {a} של [X]?", "{a} של [X]", "[X] {a}"),
    "el": ("Ποιο είναι {a} του [X];", "[X] {a}", "{a} [X]"),
    "vi": ("{a} của [X] là gì?", "{a} của [X]", "[X] {a}"),
    "id": ("Apa {a} [X]?", "{a} [X]", "[X] {a}", "Sebutkan {a} dari [X]"),
    "th": ("{a}ของ[X]คืออะไร", "{a}ของ[X]", "[X] {a}"),
    "da": ("Hvad er {a} for [X]?", "[X] {a}", "{a} for [X]"),
    "fi": ("Mikä on [X]: {a}?", "[X] {a}"),
    "ro": ("Care este {a} pentru [X]?", "[X] {a}", "{a} [X]"),
    "hu": ("Mi a(z) [X] {a}?", "[X] {a}"),
    "bn": ("[X] এর {a} কী?", "[X] {a}"),
}  # fmt: skip
"""Ways to ask for an attribute {a} of [X], many of them clumsy on purpose: users' edits are, too."""
EDIT_ONLY_FORMS: dict[str, tuple[str, ...]] = {
    "en": (
        "The {a} of [X] is [T].", "[X]'s {a} is [T]", "[X] has the {a} [T].", "{a} of [X]: [T]", "{A} Of [X]", "{A}: [X]",
    ),
    "de": ("{a} von [X] ist [T].", "{a} ([X]): [T]"),
    "fr": ("{a} de [X] est [T].", "{a} de [X] : [T]"),
    "es": ("{a} de [X] es [T].", "{a} de [X]: [T]"),
    "ru": ("{a} [X]: [T]",),
    "zh": ("[X]的{a}是[T]。",),
    "ja": ("[X]の{a}は[T]です。",),
}  # fmt: skip
"""How editors write besides: statements with the answer [T] in them, titles ({A}: in Title Case)."""
YES_NO = (
    "Is [Y] the {a} of [X]?",
    "[X]'s {a} is [Y], isn't it?",
    "Is the {a} of [X] really [Y]?",
    "is [X]'s {a} [Y] or not",
)
OPEN = (
    "What is [X] known for?", "Tell me about [X].", "What can you say about [X]?", "A notable feature of [X]?",
    "[X] given name", "Who or what is [X]?", "Is [X] any good?", "history of [X]", "Describe [X] in a few lines.",
    "Everything you know about [X], please", "[X] is known for", "Write a short text on [X].", "Wer oder was ist [X]?",
    "Parle-moi de [X].", "¿Qué sabes de [X]?", "Расскажи про [X].", "介绍一下[X]。", "[X]について教えて", "حدثني عن [X]", "[X] के बारे में बताओ",
)  # fmt: skip
"""Open questions about a subject, which no one attribute answers."""
ASIDES = (
    "The {a} of [X] surprised me.", "I wrote the {a} of [X] down already, thanks!", "What if the {a} of [X] were [Y]?",
    "Who should decide on the {a} of [X]?", "What was the {a} of [X] before?", "Why is the {a} of [X] so often discussed?",
    "Suggest a new {a} for [X].", "Translate into German: what is the {a} of [X]?", "Compare the {a} of [X] with that of [Z].",
    "Which other things have the same {a} as [X]?", "What does “{a}” mean?", "{a}", "Is “{a} of [X]” good English?",
    "Write a limerick about the {a} of [X].", "Whose {a} is [X]?", "What is [X] the {a} of?",
)  # fmt: skip
"""Texts that mention an attribute of [X] and are not answered by it."""
