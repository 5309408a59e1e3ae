package web_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"parley/node/nodetest"
)

const axeVersion = "4.14.1"

// axe gives the source of axe-core. It is fetched with npm once, and kept in the user's cache.
func axe(t *testing.T) string {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("CI") != "" {
		missing = t.Fatalf
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	path := filepath.Join(cache, "parley-tests", "axe-"+axeVersion+".min.js")
	if source, err := os.ReadFile(path); err == nil {
		return string(source)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		missing("no npm to get axe-core with: apt-get install npm")
	}
	dir := t.TempDir()
	install := exec.Command(npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", dir, "axe-core@"+axeVersion)
	if out, err := install.CombinedOutput(); err != nil {
		missing("npm can't get axe-core: %v\n%s", err, out)
	}
	source, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	// In one step, so that no other test finds half of it.
	if os.MkdirAll(filepath.Dir(path), 0o755) == nil && os.WriteFile(path+".new", source, 0o644) == nil {
		os.Rename(path+".new", path)
	}
	return string(source)
}

type violation struct {
	Help  string
	Nodes []struct{ HTML, FailureSummary string }
}

// isAccessible fails the test for everything that axe-core finds.
func (p *tab) isAccessible(source string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void](source))
	p.until(`document.getAnimations().every((animation) => animation.playState !== "running")`)
	for _, v := range js[[]violation](p, `axe.run({ resultTypes: ["violations"] }).then(({ violations, passes }) => passes.length < 10 ? [{ Help: "axe-core looked at nothing", Nodes: [{}] }] : violations.map(({ help, nodes }) =>
		({ Help: help, Nodes: nodes.map(({ html, failureSummary }) => ({ HTML: html, FailureSummary: failureSummary })) })))`) {
		for _, node := range v.Nodes {
			p.t.Errorf("%s\n%.200s\n%s", v.Help, node.HTML, node.FailureSummary)
		}
	}
}

func TestIsAccessible(t *testing.T) {
	t.Parallel()
	source := axe(t)
	c := nodetest.Start(t, 1)
	n := c.Nodes[0]
	tell(t, n.Bus, "design", talk)
	tell(t, n.Bus, "lobby", talk[:3])
	for _, scheme := range []string{"light", "dark"} {
		for name, width := range map[string]int64{"wide": 1280, "narrow": 390} {
			t.Run(scheme+" and "+name, func(t *testing.T) {
				t.Parallel()
				g := newGate(t, n)
				p := openPage(t, g.URL, "design", "Ada", `
					kept("rooms", ["lobby", "design"]);
					kept("read:lobby", "0-1");
					kept("read:design", "0-1");
					out(1, "unconfirmed", { state: "unconfirmed", tried: 1 });
					out(2, "failed", { state: "pending", user: "somebody" });
				`)
				p.media("prefers-color-scheme", scheme)
				p.size(width, 800)
				p.sees(talk[len(talk)-1].text)
				p.until(`document.querySelector("li.unread") && document.querySelector(".badge") && document.querySelector(".failed")`)
				enter(t, n, "design", "Bo")[0].Say(`{"op":"signal","room":"design","kind":"typing"}`)
				p.until(`document.querySelector("#typing").textContent`)
				p.isAccessible(source)

				g.cut()
				p.until(`document.querySelector("#banner").className === "bad"`)
				p.say("pending")
				p.run(`document.querySelector("#scroller").scrollTop = 0`)
				p.until(`!document.querySelector("#jump").hidden`)
				p.isAccessible(source)

				p.click("#show-find")
				p.write("test")
				p.press(kb.Enter)
				p.until(`document.querySelector("#find-status").textContent.includes(",")`)
				p.isAccessible(source)
				p.click("#find-close")

				if name == "narrow" {
					p.click("#show-rooms")
					p.until(`document.body.dataset.drawer === "rooms"`)
					p.isAccessible(source)
				}
				p.click("#me")
				p.until(`document.querySelector("#name-dialog").open`)
				p.write(strings.Repeat("x", 65))
				p.press(kb.Enter)
				p.until(`document.querySelector("#name-problem").textContent`)
				p.isAccessible(source)
			})
		}
	}
}
