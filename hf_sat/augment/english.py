"""Small lists of English words, compiled for hf_sat and under its licence."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEGATIONS = _words(
    """
    no not never none nobody nothing nor neither nowhere cannot without hardly barely scarcely n't
    """
)

# Closed classes, and verbs that serve as auxiliaries: a synonym of one changes the grammar.
FUNCTION_WORDS = NEGATIONS | _words(
    """
    a about above across after again against ago all almost alone along already also although always am among an
    and another any anybody anyone anything anywhere apart are around as aside at away back be because been
    before behind being below beneath beside besides between beyond both but by can could did do does doing done
    down during each either else enough even ever every everybody everyone everything everywhere except few for
    forth from further get gets getting go goes going gone got had half has have having he hence her here hers
    herself him himself his how however i if in indeed inside instead into is it its itself just keep last least
    less let lets like little lot lots made make makes making many may maybe me might mine more most much must
    my myself near need next now of off often on once one ones only onto or other others otherwise ought our
    ours ourselves out outside over own per perhaps put quite rather really same saw say says see seem seems
    seen self several shall she should since so some somebody somehow someone something sometimes somewhere soon
    still such take takes than that the their theirs them themselves then thence there therefore these they this
    those though through throughout thus till to together too took toward towards under underneath unless until
    up upon us use used uses using very was way well went were what whatever when whenever where whereas
    wherever whether which whichever while who whoever whole whom whose why will with within would yes yet you
    your yours yourself yourselves first second third two three four five six seven eight nine ten hundred
    thousand million billion dozen
    """
)

# First names that WordNet knows as words: a john is a toilet, John is not.
NAMES = _words(
    """
    john jack bill bob dick frank jimmy mark pat peter rob rose grace hope ray dolly nick rex sally tom tony
    victor carol eve faith joe joey randy roger ruby sue will
    """
)

# Options of WordNet that nobody wants to find in their data.
UNWANTED = _words(
    """
    queer gaiety goddam goddamn goddamned darned damned infernal colored negro negroid blackamoor broad bitch
    cripple croak johns privy privies savvy howling mins antic gay gayly damn prick nigra snigger spic circle
    """
)

# Common words that sound like another common one. A pronouncing dictionary says which do; this list says which of its
# words people use, so that "you" does not become "ewe".
COMMON_HOMOPHONES = _words(
    """
    ad add air heir aisle isle allowed aloud altar alter ant aunt arc ark ate eight bail bait ball band banned
    bare bear barren base bass be beach beat beet been bin bell belle berry bury berth birth billed build bite
    byte blew blue board bored boarder border bolder boulder born borne bough bow boy buoy brake break bread
    bred brews bruise bridal brows browse but buy by bye cache cash capital capitol carat carrot caret cast
    caste cede seed ceiling sealing cell sell cellar seller censor sensor cent sent cereal serial chased chaste
    cheap cheep check cheque chews choose chilly chili choir quire chord cord chute shoot cite sight site claws
    clause close clothes coarse course colonel kernel complement compliment core corps council counsel creak
    creek crews cruise cue queue currant current symbol days dear deer die dye discreet discrete draft draught
    dual duel earn urn ensure insure eye faint fair fare feat feet find fined fur flair flare flaw floor flea
    flee flew flu flour flower for four foreword forward fort fought forth fourth foul franc frank frays phrase
    friar fryer gait gate gamble gambol genes jeans guilt gorilla guerrilla grate great grease grown guessed
    guest guise guys hail hair hall haul hay hey he'll hear here heard herd heroin heroine hi high higher hire
    him hoard horde hoarse horse hose hole whole holy wholly hour our idle idol incite insight its it's jam jamb
    need knew new knight night knit not know no knows nose lacks laid lane laps lapse lead led leak leased least
    lessen lesson levy liar lyre lie links load loan lone made maid mail male main maze mall manner manor
    marshal martial massed mast meat meet medal meddle metal might mind mined miner minor missed mist moan mown
    mode mousse morning mourning muscle mustard naval navel none or one won overdo overdue paced paste packed
    pact pail pale pain pair pear passed past patience patients pause pea peace piece peak peek peel pearl purl
    pedal peddle peer pier pie plain plane pleas please plum plumb pole poll pores pours praise prays pray prey
    presence presents pride prince prints principal principle prize profit prophet quarts rain reign rein raise
    rays rap wrap wrapped read red real reed residence residents rest review revue right write ring wring road
    rode role roll root route rose rows rough rung wrung sail sale sauce source scene seen skull sea see seam
    seem sear seas sees seize surf sew so sow shake sheik sheer side slay soar sore sole soul some sum son sun
    staid stayed stair stare stake steak stationary stationery steal steel step style straight suite sweet
    sundae sunday tax tail tale taught taut tea team tear tier teas tease than their there they're threw through
    throne thrown throws thyme time tick tide tied to too two toe tow told ton tun trust vain vein veil vary
    very whale waist waste wait weight wave war wore ware wear where warn worn wax way weigh we weak week
    weather whether we'd we'll we've wet which witch while wine world whirl white who's whose wood would yoke
    yolk your you're you'll
    """
)
