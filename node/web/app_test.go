package web_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/node/nodetest"
)

// TestThePackageIsUsed installs it from a node, checks its types against an app of all there is, bundles that and runs it. What takes
// longest is in the first file, so that the others run beside it.
func TestThePackageIsUsed(t *testing.T) {
	t.Parallel()
	missing := t.Skipf
	if os.Getenv("CI") != "" {
		missing = t.Fatalf
	}
	n := nodetest.Start(t, 1).Nodes[0]
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	write("package.json", `{"name":"app","private":true,"type":"module"}`)
	if out, err := run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", n.HTTP("/parley.tgz")); err != nil {
		if _, lacking := exec.LookPath("npm"); lacking != nil {
			missing("no npm: apt-get install npm")
		}
		t.Fatalf("npm can't install the package from a node: %v\n%s", err, out)
	}
	if out, err := run("npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "typescript@5.9.3", "esbuild@0.28.2", "vite@5.4.21", "ws@8.18.3"); err != nil {
		missing("npm can't install what the test needs: %v\n%s", err, out)
	}
	write("app.ts", `
import { compareIds, Parley, ParleyError, type Room, type Snapshot } from "parley";
import { shared } from "parley/shared";

interface Mood { mood: string }
type Signals = { typing: unknown; wave: { at: string } };

export async function talk(url: string, socket?: any): Promise<string> {
  const chat = new Parley(url, { name: "Ada", token: undefined, WebSocket: socket, persist: false, shared, log: (line: string) => line });
  chat.on("state", ({ state, transport, reason }) => state === "open" && transport === "websocket" && reason);
  await chat.ready;
  const room: Room<Mood, Signals> = chat.join<Mood, Signals>("design", { limit: 10 });
  room.on("message", ({ data, from }) => data?.mood.toUpperCase() ?? from.name);
  room.on("signal", (signal) => signal.kind === "wave" && signal.data?.at);
  await room.ready;
  await room.signal("wave", { at: "you" });
  room.typing();
  const stop = room.subscribe(() => {});
  const { id } = await room.send("hi", { data: { mood: "sunny" } });
  const snapshot: Snapshot<Mood> = room.snapshot();
  if (snapshot !== room.snapshot()) throw new Error("the snapshot is another without a change");
  const stopped = new AbortController();
  stopped.abort();
  const aborted = await room.send("no", { signal: stopped.signal }).catch((error) => error.name);
  let past = "";
  for await (const message of room.past(undefined, { limit: 2 })) past += message.text + (compareIds(message.id, id) > 0 ? "!" : ".");
  stop();
  await room.leave();
  const refused = await room.send("late").catch((error: ParleyError) => error.code);
  chat.close();
  return [past, aborted, refused].join(" ");
}
// @ts-expect-error: there is no such event
new Parley("ws://x").on("mesage", () => {});
`)
	write("hook.ts", recipe(t, "A React hook", "ts"))
	write("react.d.ts", `declare module "react" {
  export function useEffect(effect: () => void | (() => void), deps: readonly unknown[]): void;
  export function useState<T>(first: T): [T, (next: T) => void];
  export function useSyncExternalStore<T>(subscribe: (changed: () => void) => () => void, snapshot: () => T): T;
}`)
	if out, err := run("node_modules/.bin/tsc", "--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.asynciterable", "app.ts", "hook.ts", "react.d.ts"); err != nil {
		t.Errorf("tsc --strict: %v\n%s", err, out)
	}
	app, _ := os.ReadFile(filepath.Join(dir, "app.ts"))
	before, _, _ := strings.Cut(string(app), "// @ts-expect-error")
	write("run.ts", before)
	write("main.ts", `import { WebSocket } from "ws"; import { Parley } from "parley"; import { talk } from "./run";
		let said = "";
		try { new Parley() } catch (error: any) { said = error.message }
		talk(process.argv[2], WebSocket).then((got) => console.log(got, "|", said));
	`)
	if out, err := run("node_modules/.bin/esbuild", "main.ts", "--bundle", "--platform=node", "--format=cjs", "--outfile=main.cjs", "--log-level=warning"); err != nil || out != "" {
		t.Fatalf("esbuild: %v\n%s", err, out)
	}
	write("vite.config.js", `export default { ssr: { noExternal: ["parley"] }, build: { ssr: "main.ts", outDir: "vite", minify: true } }`)
	if out, err := run("node_modules/.bin/vite", "build", "--logLevel", "warn"); err != nil {
		t.Fatalf("vite: %v\n%s", err, out)
	}
	for i, bundle := range []string{"main.cjs", "vite/main.js"} {
		say(t, n.Bus, "design", "Bo", "one", "two", "three")
		out, err := run("node", bundle, n.URL("/"))
		want := "hi.three.two.one." + strings.Repeat("hi.three.two.one.", i) + " AbortError left | Parley needs the URL of a server"
		if err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%s, bundled and run: %v\n%swant %s", bundle, err, out, want)
		}
	}
}
