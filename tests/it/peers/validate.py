"""validate.py SCHEMA FILE...: says as JSON which files are not valid by the schema, and why."""

import json
import sys

import jsonschema
import yaml

# Dates are text in the YAML that the gateway reads (version 1.2).
yaml.SafeLoader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
schema = json.load(open(sys.argv[1], encoding="utf-8"))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
wrong = []
for path in sys.argv[2:]:
    for error in validator.iter_errors(yaml.safe_load(open(path, encoding="utf-8"))):
        wrong.append(f"{path}: {error.json_path}: {error.message}"[:400])
print(json.dumps({"read": len(sys.argv) - 2, "wrong": wrong}))
