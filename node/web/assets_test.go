package web_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/node/nodetest"
)

// under serves a node's paths under a prefix, and notes what is asked for.
func under(t *testing.T, prefix string, n *nodetest.Node) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var paths []string
	node := http.StripPrefix(prefix, n.Handler())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.URL.Path)
		mu.Unlock()
		node.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return s.URL + prefix, func() []string {
		mu.Lock()
		defer mu.Unlock()
		now := paths
		paths = nil
		return now
	}
}

func TestThePageWorksUnderAPathPrefix(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	url, _ := under(t, "/tools/chat", n)
	for name, at := range map[string]string{"with a WebSocket": url, "without": blockUpgradesAt(t, strings.TrimSuffix(url, "/tools/chat")) + "/tools/chat"} {
		t.Run(name, func(t *testing.T) {
			p := openPage(t, at, "design", "Ada")
			p.say("said " + name)
			p.sees("said " + name)
			if path := js[string](p, `document.querySelector("#room-list a").pathname`); path != "/tools/chat/" {
				t.Errorf("the room is at %s", path)
			}
		})
	}
}

func TestAWarmVisitIsOneRequest(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", "hi")
	url, asked := under(t, "", n)
	p := openPage(t, url, "design", "Ada")
	p.sees("hi")
	cold := asked()
	p.open(blankPage(t))
	p.open(url + "/?room=design")
	p.sees("hi")
	warm := asked()
	warm = slices.DeleteFunc(warm, func(path string) bool { return path == "/ws" })
	if !slices.Equal(warm, []string{"/"}) {
		t.Errorf("a warm visit asks for %q, a cold one for %q", warm, cold)
	}
}

func TestAssetsAreKeptAndFoundByPagesOfOtherVersions(t *testing.T) {
	body, _ := io.ReadAll(get(t, "/").Body)
	assets := regexp.MustCompile(`(?:href|src)="(assets/[^"]+)"`).FindAllStringSubmatch(string(body), -1)
	if len(assets) < 3 {
		t.Fatalf("the page has the assets %q", assets)
	}
	hash := regexp.MustCompile(`assets/[^/]+/`)
	for _, a := range assets {
		path := "/" + a[1]
		res := get(t, path)
		if res.StatusCode != http.StatusOK || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: status %d, Cache-Control %q", path, res.StatusCode, res.Header.Get("Cache-Control"))
		}
		res = get(t, hash.ReplaceAllString(path, "assets/another-version/"))
		if res.StatusCode != http.StatusOK || res.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s of another version: status %d, Cache-Control %q", path, res.StatusCode, res.Header.Get("Cache-Control"))
		}
	}
	// What pages asked for before their assets had hashes.
	for _, path := range []string{"/app/main.js", "/style.css", "/parley/room.js"} {
		if res := get(t, path); res.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", path, res.StatusCode)
		}
	}
	if res := get(t, "/assets/another-version/nothing.js"); res.StatusCode != http.StatusNotFound {
		t.Errorf("an asset that no version has: status %d", res.StatusCode)
	}
}

// TestFirstMessage measures how long a visitor waits for the first message; it judges only the order of things.
func TestFirstMessage(t *testing.T) {
	lags := []time.Duration{0, 80 * time.Millisecond, 300 * time.Millisecond}
	if *shotsDir == "" { // with -shots it measures, alone on a machine
		lags = lags[:1]
	}
	n := nodetest.Start(t, 1).Nodes[0]
	say(t, n.Bus, "design", "Bo", "hi")
	g := newGate(t, n)
	for _, lag := range lags {
		g.slow(lag)
		p := newTab(t)
		for _, visit := range []string{"cold", "warm"} {
			p.open("about:blank")
			start := time.Now()
			p.open(g.URL + "/?room=design")
			p.sees("hi")
			t.Logf("%v, %s: first message after %d ms", lag, visit, time.Since(start).Milliseconds())
		}
		p.shot("first-message-" + lag.String())
	}
}
