"""Contractions of English as the evaluation of VQAv2 spells them."""

_WHOLE = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's
    how'd how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've
    o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll
    someone's something'd something'll that's there'd there're there's they'd they'll they're
    they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd
    you'll you're you've
"""
"""Contractions that are also found without any apostrophe."""
_HALVES = """
    couldn'tve couldn't've couldnt've couldn't've hadnt've hadn't've hadn'tve hadn't've hed've
    he'd've he'dve he'd've itd've it'd've it'dve it'd've mightnt've mightn't've mightn'tve
    mightn't've ow's'at 'ow's'at 'ows'at 'ow's'at 'ow'sat 'ow's'at shed've she'd've she'dve
    she'd've shouldnt've shouldn't've shouldn'tve shouldn't've somebody'd somebodyd
    somebodyd've somebody'd've somebody'dve somebody'd've someoned've someone'd've someone'dve
    someone'd've somethingd've something'd've something'dve something'd've thered've
    there'd've there'dve there'd've theyd've they'd've they'dve they'd've wed've we'd've
    we'dve we'd've whod've who'd've who'dve who'd've wouldnt've wouldn't've wouldn'tve
    wouldn't've yall'll y'all'll y'allll y'all'll yall'd've y'all'd've y'alld've y'all'd've
    y'all'dve y'all'd've youd've you'd've you'dve you'd've
"""
"""Other spellings, each with the contraction that it becomes."""

CONTRACTIONS = {
    **{word.replace("'", ""): word for word in _WHOLE.split()},
    **dict(zip(_HALVES.split()[::2], _HALVES.split()[1::2], strict=True)),
}
"""Lower-case spellings with the contraction that each becomes."""
