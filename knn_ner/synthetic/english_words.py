"""English: the words of the templates, and the syllables of the names."""

# How names are invented. Endings overlap between the kinds of names, as they do in life.
SYLLABLES = {
    "initial": "B Br C D Dr F G Gr H J K Kl L M N P Pr Qu R S Sk St T Tr V W Z Th Sh".split(),
    "middle": "b d g k l ll m n nd nt r rd rg rn rv s sk st t tr v z lm lt ndr".split(),
    "vowel": "a a e e i i o o u ai ea ou ie".split(),
    "root": (
        "$initial+$vowel+$middle",
        "$initial+$vowel+$middle",
        "$initial+$vowel+$middle+$vowel+$middle",
    ),
    "place_ending": "mere dale by ov ia esk and ow a um in olm".split(),
    "surname_ending": "an ek ova er dale and ow is a olm ich in".split(),
    "given_ending": "a o i an is el in ette".split(),
    "brand_ending": "ex is a o on ia er ix um".split(),
    "digit": "2 3 4 5 6 7 8 9".split(),
    "letter": "A C K M Q S T X Z".split(),
    "model": ("$digit", "$digit+00", "$letter+$digit", "$letter+$digit+0", "Pro", "Mini", "Max"),
}

# Common words; the capitalised ones are no names, or hard.
WORDS = {
    "person_noun": "singer carpenter goalkeeper lawyer painter minister nurse chemist pilot poet farmer "
    "judge teacher drummer captain mayor".split(),
    "organisation_noun": "brewery bank publisher club airline union shipyard charity newspaper ministry "
    "insurer museum retailer party".split(),
    "location_noun": "village harbour island valley suburb province lake river town capital mountain "
    "square coast".split(),
    "product_noun": "phone bicycle kettle camera car soap tractor laptop watch vaccine lamp razor "
    "drink".split(),
    "work_noun": "novel film song opera poem album series painting play ballad documentary "
    "comedy".split(),
    "shared_noun": "rival giant favourite newcomer legend classic".split(),
    "title": "President Minister Captain Doctor Professor Mrs Mr Judge Sir".split(),
    "adjective": "old new quiet famous cheap grey local young strange popular broken early bright heavy "
    "small foreign tired golden late honest".split(),
    "noun": "price weather season report letter market window budget strike vote storm contract road "
    "harvest bridge debt train garden fire prize crowd summer election rumour bill winter shadow "
    "river moon night house silence".split(),
    "plural": "prices workers visitors taxes letters reporters fans storms tickets shares roads elections "
    "critics neighbours engines voters trains".split(),
    "intransitive": "fell rose changed returned vanished improved collapsed grew stopped failed".split(),
    "transitive": "followed ignored praised blamed found lost saved changed missed remembered".split(),
    "say": "said announced claimed denied wrote hoped feared repeated insisted".split(),
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "month": "January March April June August October December".split(),
    "number": "two three four five nine ten 12 17 30 45 80 250".split(),
    "adverb": "again soon slowly yesterday today quietly twice abroad".split(),
}

# The words of titles: the common nouns again, so that only the context tells them apart.
TITLE_WORDS = {
    "title_noun": "Harvest River Winter Moon Garden Fire Shadow Silence Bridge House Storm Summer Night "
    "Letter Road Window Train Season".split(),
    "title_adjective": "Golden Grey Quiet Broken Last Strange Early Bright Young Old".split(),
}

NAME_WORDS = {
    "club": "United Rovers Athletic City".split(),
    "company_ending": "Group Partners Works Press Motors Foods".split(),
    "field": "Technology Music Law Medicine".split(),
    "side": "North South East West New Upper".split(),
    "site_ending": "Bay Hills Beach Valley Falls City".split(),
}
