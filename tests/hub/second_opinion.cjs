// The Hub's JavaScript client against the test Hub: reads what the Python client published, and writes a repository.
// NODE_PATH=.../node_modules node second_opinion.cjs HUB_URL TOKEN PUBLISHED_REPO; prints one JSON object.
const { createHash } = require("node:crypto");
const hub = require("@huggingface/hub");

const [hubUrl, accessToken, published] = process.argv.slice(2);
const common = { hubUrl, accessToken };
const sha256 = async (blob) => createHash("sha256").update(Buffer.from(await blob.arrayBuffer())).digest("hex");

async function collect(generator) {
  const found = [];
  for await (const one of generator) found.push(one);
  return found;
}

async function read(name) {
  const repo = { type: "model", name };
  const files = {};
  for (const entry of await collect(hub.listFiles({ repo, recursive: true, ...common }))) {
    if (entry.type !== "file") continue;
    const blob = await hub.downloadFile({ repo, path: entry.path, ...common });
    files[entry.path] = { size: entry.size, oid: entry.oid, lfs: entry.lfs?.oid ?? null, sha256: await sha256(blob) };
  }
  const info = await hub.modelInfo({ name, additionalFields: ["cardData", "sha", "tags"], ...common });
  const tensors = await hub.parseSafetensorsMetadata({ repo, path: "vision/model.safetensors", ...common });
  return {
    files,
    private: info.private,
    cardData: info.cardData,
    tensors: Object.keys(tensors.header).filter((key) => key !== "__metadata__"),
    exists: [await hub.repoExists({ repo, ...common }), await hub.fileExists({ repo, path: "nothing", ...common })],
  };
}

async function write(name) {
  const repo = { type: "model", name };
  const large = Buffer.alloc(250_000, 7);
  await hub.createRepo({ repo, private: true, ...common });
  await hub.createBranch({ repo, branch: "side", ...common });
  const files = [
    { path: "README.md", content: new Blob(["---\nlicense: mit\n---\n日本語\n"]) },
    { path: "deep/er/model.safetensors", content: new Blob([large]) },
  ];
  const sent = await hub.uploadFiles({ repo, files, branch: "side", commitTitle: "From JavaScript", useXet: false, ...common });
  await hub.deleteFiles({ repo, paths: ["README.md"], branch: "side", commitTitle: "Less", ...common });
  const pull = await hub.uploadFiles({ repo, files, isPullRequest: true, commitTitle: "Please", useXet: false, ...common });
  const { slug } = await hub.createCollection({ collection: { title: "From JS", namespace: "tester", private: true, item: undefined }, ...common });
  const collections = await collect(hub.listCollections({ search: { owner: ["tester"] }, ...common }));
  return { oid: sent.commit.oid, pull: pull.pullRequestUrl, slug, titles: collections.map((one) => one.title), sha256: await sha256(new Blob([large])) };
}

async function refused(action) {
  try {
    await action();
    return 0;
  } catch (error) {
    return error.statusCode ?? String(error);
  }
}

(async () => {
  const me = await hub.whoAmI(common);
  const found = { name: me.name, read: await read(published), write: await write("tester/from-js") };
  found.refusals = [
    await refused(() => hub.whoAmI({ hubUrl, accessToken: "hf_nobody" })),
    await refused(() => hub.createRepo({ repo: { type: "model", name: "tester/from-js" }, ...common })),
    await refused(() => hub.modelInfo({ name: "tester/absent", ...common })),
  ];
  process.stdout.write(JSON.stringify(found));
})();
