"""validate.py SCHEMA FILE...: says as JSON which files are not valid by the schema, and why."""

import json
import sys

import jsonschema
import yaml

schema = json.load(open(sys.argv[1], encoding="utf-8"))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
wrong = []
for path in sys.argv[2:]:
    for error in validator.iter_errors(yaml.safe_load(open(path, encoding="utf-8"))):
        wrong.append(f"{path}: {error.json_path}: {error.message}"[:400])
print(json.dumps({"read": len(sys.argv) - 2, "wrong": wrong}))
