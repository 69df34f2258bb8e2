// Reads KEDA manifests as JSON, one a line, and checks them against the schemas of KEDA's own types.
import { createInterface } from "node:readline";

const models = await import(`${process.argv[2]}/node_modules/@kubernetes-models/keda/keda.sh/v1alpha1/index.js`);

for await (const line of createInterface({ input: process.stdin })) {
  const manifest = JSON.parse(line);
  new models[manifest.kind](manifest).validate();
  console.log(`${manifest.kind}/${manifest.metadata.name}`);
}
