// Checks dashboards against the types of @grafana/schema: each becomes an object
// literal in TypeScript, whose compiler then complains about keys that the schema
// does not know, keys that are missing, and values that are none of an enum's.
//
// usage: node check.js DASHBOARD.json...   (after `npm ci`; paths from the folder above)

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const build = join(here, "build");

// What a panel of each type may have, by the name of its module in the schema.
const MODULES = { barchart: "BarChart", heatmap: "Heatmap", stat: "Stat", table: "Table", timeseries: "TimeSeries" };

const HEAD = `
import type * as grafana from "@grafana/schema";
${Object.entries(MODULES)
  .map(([type, name]) => `import type * as ${type} from "@grafana/schema/dist/esm/raw/composable/${type}/panelcfg/x/${name}PanelCfg_types.gen";`)
  .join("\n")}

// The same shape with plain values in place of enums, as JSON has them.
type Json<T> =
  unknown extends T ? T
  : T extends string ? \`\${T}\`
  : T extends boolean | null | undefined ? T
  : T extends number ? (\`\${T}\` extends \`\${infer N extends number}\` ? N : T)
  : T extends Array<infer U> ? Json<U>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;

// The query of the Prometheus data source, a plugin that is not in the schema.
type Query = {
  refId: string; expr: string; legendFormat: string; editorMode: "code";
  format: "time_series" | "table" | "heatmap"; instant: boolean; range: boolean;
};
type Panel<Type extends string, Options, Custom> =
  Json<Omit<grafana.Panel, "options" | "fieldConfig" | "targets" | "type">> & {
    type: Type;
    options: Json<Options>;
    targets: Query[];
    fieldConfig: {
      defaults: Json<Omit<grafana.FieldConfig, "custom">> & { custom?: Json<Custom> };
      overrides: Json<grafana.FieldConfigSource["overrides"]>;
    };
  };
type Row = Json<Omit<grafana.RowPanel, "panels">> & { panels: [] };
type Variable = Json<Omit<grafana.VariableModel, "query">> & { query: string | { query: string; qryType: number; refId: string } };
type Dashboard = Json<Omit<grafana.Dashboard, "panels" | "templating">> & { templating: { list: Variable[] } };
`;

/** TypeScript that compiles if the dashboard fits the schema. */
function source(dashboard) {
  const { panels, ...rest } = dashboard;
  const literal = (name, type, value) => `export const ${name}: ${type} = ${JSON.stringify(value, null, 2)};\n`;
  const parts = panels.map((panel) => {
    if (panel.type === "row") return literal(`row_${panel.id}`, "Row", panel);
    if (!MODULES[panel.type]) throw new Error(`${panel.title}: add the panel type ${panel.type} to MODULES in check.js`);
    const custom = panel.type === "stat" ? "{}" : `${panel.type}.FieldConfig`;
    return literal(`panel_${panel.id}`, `Panel<"${panel.type}", ${panel.type}.Options, ${custom}>`, panel);
  });
  return HEAD + literal("dashboard", "Dashboard", rest) + parts.join("");
}

mkdirSync(build, { recursive: true });
const files = process.argv.slice(2).map((path) => {
  const file = join(build, basename(path, ".json") + ".ts");
  writeFileSync(file, source(JSON.parse(readFileSync(join(here, "..", path), "utf8"))));
  return file;
});
if (files.length === 0) throw new Error("name the dashboards to check");
const tsc = join(here, "node_modules", "typescript", "bin", "tsc");
const flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext"];
try {
  execFileSync(process.execPath, [tsc, ...flags, ...files], { stdio: "inherit" });
} catch {
  process.exit(1);
}
console.log(`${files.length} dashboards fit the schema`);
