"""Writes a list for make_table.py: 4000 made-up packages of twelve trades, the same on every run. python3 list.py OUT.tsv"""
import random, sys

TRADES = """bread oven dough flour yeast crust bakery loaf pastry recipe sugar butter kneading rye sourdough bagel biscuit cake
harbour sail anchor tide keel crew rudder mast wharf cargo vessel pilot buoy cabin rope ferry hull
ledger invoice audit tax payroll receipt budget expense profit currency bank debt refund salary voucher interest fee account
orchard apple pear harvest beehive honey soil compost seed meadow tractor irrigation barley greenhouse hay
railway train platform ticket signal locomotive tunnel timetable carriage freight bridge station depot gauge tram axle
violin chord melody tempo rhythm choir orchestra flute score concert octave drum harmony piano lyric
clinic nurse patient vaccine fever bandage surgery pharmacy dosage ward therapy symptom dentist pulse blood ambulance scan
compiler parser syntax linker debugger token macro closure loop pointer thread heap module branch commit merge patch
storm cloud rainfall humidity barometer breeze thunder snow drought climate forecast radar satellite hail fog flood
museum painting sculpture gallery curator fresco canvas pottery archive portrait engraving exhibit antique relic easel bronze
lesson pupil teacher classroom homework grammar quiz exam diploma tutor essay alphabet geometry lecture syllabus chalk
lock alarm camera fence guard key badge vault sensor siren patrol intruder visitor password shield fingerprint"""
VERBS = "plans sorts counts watches compares draws exports mends explains schedules prints translates predicts gathers".split()
KINDS = "a tiny library|a command|an agent|an MCP server|a plugin|tools for agents|a calm café app|a gRPC-bridge".split("|")
HOW = "quickly|offline|without a database|by voice|in plain text|for teams|at night|with few clicks|over webSocket"
FRONT = "bel cor dun fen gal hob jas kel lum mor nim pol quo ras tev vex wim yar zil".split()
BACK = "ba do fi lu mek nor pra su tix".split()

with open(sys.argv[1], "w", encoding="utf-8", newline="\n") as out:
    pick = random.Random(7).choice
    print("name", "version", "licence", "summary", sep="\t", file=out)
    for number in range(4000):
        trade = pick(TRADES.split("\n")).split()
        one, two, three, name = pick(trade), pick(trade), pick(trade), pick(FRONT) + pick(BACK)
        text = f"{pick(KINDS)} that {pick(VERBS)} {one} and {two}, {pick(VERBS)} each {three} {pick(HOW.split('|'))}."
        print(f"{name}-{pick(trade)}", f"1.{number}", "made up", text[0].upper() + text[1:], sep="\t", file=out)
