import json, sys

call = json.load(sys.stdin)  # what the caller sent
print(len(call["task"].split()), "words")  # the answer: text, or JSON
