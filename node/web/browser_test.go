package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"go.uber.org/goleak"
)

// patience bounds every wait of a test. A test that works waits for far less, but on a machine that does much else.
const patience = 90 * time.Second

var shotsDir = flag.String("shots", "", "directory to write screenshots of the page's main states to")

func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		parallel.Value.Set("4") // more than there are cores: most of them wait most of the time
	}
	code := m.Run()
	closeBrowser()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// browser is one Chromium for all tests, started by the first that needs it.
var browser struct {
	once   sync.Once
	ctx    context.Context
	cancel func()
	err    error
}

func startBrowser() {
	path := findBrowser()
	if path == "" {
		browser.err = errors.New("no chromium: apt-get install chromium")
		return
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path),
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.WindowSize(1280, 800),
		chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		// As by default, and no lists below the address bar, which are pages of their own that each window loads.
		chromedp.Flag("disable-features", "Translate,BlinkGenPropertyTrees,WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
		chromedp.Flag("disable-back-forward-cache", true),
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1"),
		chromedp.Flag("lang", "en-GB"),
	)
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(alloc)
	browser.ctx = ctx
	browser.cancel = func() {
		chromedp.Cancel(ctx)
		cancel()
	}
	browser.err = chromedp.Do(ctx)
}

func closeBrowser() {
	if browser.cancel != nil {
		browser.cancel()
	}
}

func findBrowser() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// A tab is a window of its own: nothing is shared with other tabs, as if it ran on another machine.
type tab struct {
	t       *testing.T
	ctx     context.Context
	cancel  func()
	scripts []page.ScriptIdentifier // of onEachPage

	mu       sync.Mutex
	problems []string // guarded by mu; what no page of ours may cause

	interrupted bool // guarded by mu; something could not be loaded because of networkChanged

	siblings []*tab // those that a test has done with
}

// idle are the windows that tests have done with: to make one costs more than most tests.
var idle struct {
	sync.Mutex
	tabs []*tab // guarded by the mutex
}

// tests counts the windows that were handed out.
var tests atomic.Int64

// newTab opens a window. A test that needs one is skipped where there is no browser, but fails in CI.
func newTab(t *testing.T) *tab {
	t.Helper()
	browser.once.Do(startBrowser)
	if browser.err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(browser.err)
		}
		t.Skip(browser.err)
	}
	idle.Lock()
	var p *tab
	if last := len(idle.tabs) - 1; last >= 0 {
		p, idle.tabs = idle.tabs[last], idle.tabs[:last]
	}
	idle.Unlock()
	if p == nil {
		p = makeTab(t, browser.ctx, chromedp.WithNewBrowserContext())
	}
	p.t = t
	t.Cleanup(func() {
		p.done()
		if t.Failed() || !p.clear() {
			p.cancel()
			return
		}
		idle.Lock()
		defer idle.Unlock()
		idle.tabs = append(idle.tabs, p)
	})
	p.size(1100, 700)
	p.forget("sessionStorage", "localStorage")
	return p
}

// forget empties what earlier tests left in the window's stores: another one may have had the same port.
func (p *tab) forget(stores ...string) {
	p.t.Helper()
	id := fmt.Sprint(tests.Add(1))
	p.onEachPage(expand(`try {
		if (sessionStorage.getItem("test") !== %s) {
			`+strings.Join(stores, ".clear();")+`.clear();
			sessionStorage.setItem("test", %s);
		}
	} catch {}`, []any{id, id}))
}

// sibling opens another tab of the same person's browser.
func (p *tab) sibling() *tab {
	p.t.Helper()
	var q *tab
	if last := len(p.siblings) - 1; last >= 0 {
		q, p.siblings = p.siblings[last], p.siblings[:last]
		q.t = p.t
	} else {
		q = makeTab(p.t, p.ctx)
	}
	q.size(1100, 700)
	q.forget("sessionStorage") // the other store is everybody's
	p.t.Cleanup(func() {
		q.done()
		if p.t.Failed() || !q.clear() {
			q.cancel()
			return
		}
		p.siblings = append(p.siblings, q)
	})
	return q
}

func makeTab(t *testing.T, parent context.Context, options ...chromedp.ContextOption) *tab {
	t.Helper()
	p := &tab{t: t}
	p.ctx, p.cancel = chromedp.NewContext(parent, append(options, chromedp.WithListener(p.listen))...)
	if err := chromedp.Do(p.ctx); err != nil { // makes the tab, which lasts as long as this context
		t.Fatal(err)
	}
	p.command(func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
		return err
	})
	return p
}

// done fails the test for what its page caused.
func (p *tab) done() {
	if p.t.Failed() {
		p.tellState()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, problem := range p.problems {
		p.t.Errorf("the page caused: %s", problem)
	}
	p.problems = nil
}

// clear makes a window as good as new, for the next test. It reports whether it could.
func (p *tab) clear() bool {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if chromedp.Do(ctx, chromedp.Navigate("about:blank")) != nil {
		return false
	}
	for _, id := range p.scripts {
		if _, err := chromedp.Call(ctx, page.RemoveScriptToEvaluateOnNewDocument, page.RemoveScriptToEvaluateOnNewDocumentParams{Identifier: id}); err != nil {
			return false
		}
	}
	p.scripts = nil
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = nil
	return err == nil
}

// listen notes exceptions and breaches of the policy. That something can't be reached is what many tests are about.
func (p *tab) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		err := chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}
		p.problems = append(p.problems, err.Error())
	case *log.EventEntryAdded:
		text := e.Entry.Text
		if strings.Contains(text, "Content Security Policy") || strings.Contains(text, "Trusted") {
			p.problems = append(p.problems, text)
		}
		if strings.Contains(text, networkChanged) {
			p.interrupted = true
		}
	}
}

// tellState says what a failed test's page looked like.
func (p *tab) tellState() {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	if text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.title + "\n" + document.body.innerText.slice(-1500)`)); err == nil {
		p.t.Logf("the page was:\n%s", text)
	}
	if png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot()); err == nil && *shotsDir != "" {
		os.WriteFile(filepath.Join(*shotsDir, "failed-"+strings.ReplaceAll(p.t.Name(), "/", "-")+".png"), png, 0o644)
	}
}

// command does something in the tab, and fails the test if it can't be done in time.
func (p *tab) command(f func(context.Context) error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := f(ctx); err != nil {
		p.t.Fatal(err)
	}
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	p.command(func(ctx context.Context) error { return chromedp.Do(ctx, steps...) })
}

func (p *tab) size(width, height int64, options ...chromedp.EmulateViewportOption) {
	p.t.Helper()
	p.do(chromedp.EmulateViewport(width, height, options...))
}

// networkChanged is why Chromium gives up all that it loads when an interface comes or goes on the machine, as it does when
// a container starts. It is no fault of a test's.
const networkChanged = "ERR_NETWORK_CHANGED"

func (p *tab) open(url string) {
	p.t.Helper()
	p.load(chromedp.Navigate(url))
}

func (p *tab) reload() {
	p.t.Helper()
	p.load(chromedp.Reload())
}

// load loads a page, again if the network changes meanwhile.
func (p *tab) load(step chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	p.command(func(ctx context.Context) error {
		for {
			p.setInterrupted(false)
			err := chromedp.Do(ctx, step)
			if again := p.setInterrupted(false); again || err != nil && strings.Contains(err.Error(), networkChanged) {
				continue
			}
			return err
		}
	})
}

func (p *tab) setInterrupted(to bool) (was bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, p.interrupted = p.interrupted, to
	return was
}

// js gives an expression's value, or what it promises. Each %s stands for an argument, as JSON.
func js[T any](p *tab, expression string, args ...any) (got T) {
	p.t.Helper()
	p.command(func(ctx context.Context) (err error) {
		got, err = chromedp.Run(ctx, chromedp.Evaluate[T](expand(expression, args), chromedp.EvalAwaitPromise))
		return err
	})
	return got
}

// run runs statements.
func (p *tab) run(statements string, args ...any) {
	p.t.Helper()
	js[chromedp.Void](p, "(async () => {"+expand(statements, args)+"\n})()")
}

// until waits for an expression to be true. What is not there yet is no error.
func (p *tab) until(expression string, args ...any) {
	p.t.Helper()
	expression = expand(expression, args)
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	calm := "(() => { try { return (" + expression + "\n) } catch { return false } })()"
	poll := chromedp.Poll[chromedp.Void](calm, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(0))
	err := chromedp.Do(ctx, poll)
	for err != nil && strings.Contains(err.Error(), "Cannot find context") { // the page became another
		err = chromedp.Do(ctx, poll)
	}
	if err != nil {
		p.t.Fatalf("waiting for %s: %v", expression, err)
	}
}

// expand puts arguments, as JSON, in place of each %s.
func expand(expression string, args []any) string {
	for _, arg := range args {
		b, _ := json.Marshal(arg)
		expression = strings.Replace(expression, "%s", string(b), 1)
	}
	return expression
}

// press strikes a key in what has the focus. As with a real keyboard, a page that handles it gets no character.
func (p *tab) press(key string, modifiers ...chromedp.Modifier) {
	p.t.Helper()
	p.command(func(ctx context.Context) error {
		events := kb.Encode([]rune(key)[0])
		down, up := events[0], events[len(events)-1]
		if len(events) == 3 {
			down.Text, down.UnmodifiedText = events[1].Text, events[1].UnmodifiedText
		}
		for _, event := range []*input.DispatchKeyEventParams{down, up} {
			for _, modifier := range modifiers {
				event.Modifiers |= int64(modifier)
			}
			if _, err := chromedp.Call(ctx, input.DispatchKeyEvent, *event); err != nil {
				return err
			}
		}
		return nil
	})
}

// write inserts text where the focus is, as an input method does.
func (p *tab) write(text string) {
	p.t.Helper()
	p.command(func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, input.InsertText, input.InsertTextParams{Text: text})
		return err
	})
}

// say types a message and sends it.
func (p *tab) say(text string) {
	p.t.Helper()
	p.run(`document.querySelector("#text").focus()`)
	p.write(text)
	p.press(kb.Enter)
}

// click waits until a pointer would reach an element, and clicks.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.until(`((node) => {
		if (!node) return false;
		const { x, y, width, height } = node.getBoundingClientRect();
		return node.contains(document.elementFromPoint(x + width / 2, y + height / 2));
	})(document.querySelector(%s))`, selector)
	p.run(`document.querySelector(%s).click()`, selector)
}

// onEachPage runs a script before those of each page that is opened from now on.
func (p *tab) onEachPage(script string) {
	p.t.Helper()
	p.command(func(ctx context.Context) error {
		added, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
		if err == nil {
			p.scripts = append(p.scripts, added.Identifier)
		}
		return err
	})
}

// media makes the page believe that the user prefers something, such as ("prefers-color-scheme", "dark").
func (p *tab) media(name, value string) {
	p.t.Helper()
	p.command(func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: name, Value: value}},
		})
		return err
	})
}

// shot writes a screenshot, if screenshots are wanted.
func (p *tab) shot(name string) {
	p.t.Helper()
	if *shotsDir == "" {
		return
	}
	p.command(func(ctx context.Context) error {
		png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(*shotsDir, name+".png"), png, 0o644)
	})
}
