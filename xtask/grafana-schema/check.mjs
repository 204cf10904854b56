// Checks dashboards against Grafana's own types: `node check.mjs SCHEMA DASHBOARD…`.
// SCHEMA is the file that the JSON schema made of dashboard.ts is kept in; it is made when it is not there.
// Run in a directory that holds this file, dashboard.ts and node_modules. A finding a line, exit code 1 if any.
import Ajv from 'ajv';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { createGenerator } from 'ts-json-schema-generator';

const [schemaFile, ...dashboards] = process.argv.slice(2);

function generate() {
  const options = { module: 'esnext', moduleResolution: 'node', strict: true, skipLibCheck: true };
  writeFileSync('tsconfig.json', JSON.stringify({ compilerOptions: options }));
  const schema = createGenerator({
    path: 'dashboard.ts',
    tsconfig: 'tsconfig.json',
    type: 'Dashboard',
    // Every panel type has an `Options`: definitions would share the name.
    expose: 'none',
    additionalProperties: false,
  }).createSchema('Dashboard');
  writeFileSync(`${schemaFile}.new`, JSON.stringify(schema));
  renameSync(`${schemaFile}.new`, schemaFile);
}

if (!existsSync(schemaFile)) generate();
const schema = JSON.parse(readFileSync(schemaFile, 'utf8'));
const ajv = new Ajv({ allErrors: true, strict: false });

// A panel fits one of many types; only what keeps it from its own is worth reading.
const panels = schema.definitions.Dashboard.properties.panels;
const kinds = new Map(panels.items.anyOf.map((kind) => [kind.properties.type.const, ajv.compile(kind)]));
panels.items = {};
const outside = ajv.compile(schema);

const queries = ['prometheus', 'loki', 'jaeger'];
/** Errors of the alternatives that a query is not meant to be are left out. */
const relevant = (error) => {
  const alternative = error.schemaPath.match(/targets\/items\/anyOf\/(\d)/);
  if (error.keyword === 'anyOf' && alternative === null) return !error.instancePath.includes('/targets/');
  return alternative === null || error.type === queries[alternative[1]];
};

let found = 0;
function report(file, where, errors, panel) {
  for (const error of errors ?? []) {
    const target = error.instancePath.match(/^\/targets\/(\d+)/);
    error.type = target ? panel?.targets[target[1]]?.datasource?.type : undefined;
    if (!relevant(error)) continue;
    const what = error.params.additionalProperty ?? JSON.stringify(error.params.allowedValue ?? error.params.allowedValues ?? '');
    console.log(`${basename(file)}: ${where}${error.instancePath}: ${error.message} ${what}`.trimEnd());
    found += 1;
  }
}

for (const file of dashboards) {
  const dashboard = JSON.parse(readFileSync(file, 'utf8'));
  if (!outside(dashboard)) report(file, '', outside.errors);
  for (const panel of dashboard.panels ?? []) {
    const fits = kinds.get(panel.type);
    if (!fits) {
      console.log(`${basename(file)}: panel "${panel.title}": unknown type ${panel.type}`);
      found += 1;
    } else if (!fits(panel)) report(file, `panel "${panel.title}"`, fits.errors, panel);
  }
}
process.exitCode = found > 0 ? 1 : 0;
