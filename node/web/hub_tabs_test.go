package web_test

import "testing"

// tabs are a, b and c, which share the connection of a hub. What the node says is in the hands of the script.
const tabs = `
	const load = () => import(%s).catch(load); // the network may change meanwhile
	const { Hub } = await load();
	const moment = () => new Promise((done) => setTimeout(done, 1));
	const links = [];
	class Link {
		transport = "websocket";
		said = [];
		constructor(url, on) {
			this.on = on;
			links.push(this);
		}
		send(frame) {
			this.said.push(frame);
		}
		close() {
			this.closed = true;
		}
		say(op, fields) {
			this.on.frame({ op, ...fields });
		}
		last(op) {
			return this.said.findLast((frame) => frame.op === op);
		}
	}
	const told = { a: [], b: [], c: [] };
	const events = [];
	const hub = new Hub("ws://node", { Link, heard() {} }, {
		first: "a",
		tell: (tab, frame) => told[tab].push(frame),
		opened: (tab) => events.push("open " + tab),
		drop: (tab) => events.push("drop " + tab),
		lost: () => events.push("lost"),
	});
	const [node] = links;
	const ok = (op, fields) => node.say("ok", { req: node.last(op).req, room: "design", ...fields });
	const say = (op, fields) => node.say(op, { room: "design", ...fields });
	const count = (op) => node.said.filter((frame) => frame.op === op).length;
	const words = (tab) => told[tab].splice(0).map(({ op, req, id, code }) => [op, req && "#" + req, id, code].filter(Boolean).join(" ")).join();
	const take = (tab, op, req, fields) => hub.take(tab, { op, req, ...(op !== "hello" && { room: "design" }), ...fields });
	node.on.open();
	const welcome = () => {
		take("a", "hello", 1);
		node.say("welcome", { req: node.last("hello").req });
		hub.add("b");
		hub.add("c");
		words("a");
	};
	const live = () => {
		welcome();
		take("a", "join", 2);
		ok("join", { last: "5-0" });
		say("live");
		words("a");
	};
	const newcomer = async (req, fields) => { // b, as one who is new
		take("b", "join", req, fields);
		ok("join", { last: "5-0" });
		await moment();
		ok("history", { messages: [{ id: "5-0" }] });
		await moment();
	};
`

func TestAHubServesEachTabAsANodeWould(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(request, int) []string { return nil }) // serves the modules
	p := newTab(t)
	p.open(blankPage(t))
	for _, tt := range []struct{ name, script, want string }{
		{"the others wait until the first is welcome", `
			hub.add("b");
			take("a", "hello", 1);
			const before = events.splice(0).join();
			node.say("welcome", { req: node.last("hello").req });
			hub.add("c");
			return before + " " + events.join();
		`, "open a open b,open c"},
		{"each is answered by its own numbers", `
			welcome();
			take("a", "ping", 7);
			const of = node.last("ping").req;
			take("b", "ping", 7);
			ok("ping");
			const first = words("a") + words("b");
			node.say("ok", { req: of });
			return first + " " + words("a");
		`, "ok #7 ok #7"},
		{"one who asks too much is refused, and served again once it is answered", `
			welcome();
			for (let i = 1; i <= 1001; i++) take("b", "ping", i);
			const refused = words("b");
			take("a", "ping", 7);
			ok("ping");
			node.say("ok", { req: node.said.find(({ op }) => op === "ping").req });
			words("b");
			take("b", "ping", 2000);
			ok("ping");
			return [refused, words("a"), words("b")].join();
		`, "error #1001 rate_limited,ok #7,ok #2000"},
		{"a newcomer gets what there is, and what is said meanwhile after it", `
			live();
			take("b", "join", 3, { limit: 10 });
			ok("join", { last: "5-0" });
			await moment();
			const { limit } = node.last("history");
			say("message", { id: "6-0" });
			ok("history", { messages: [{ id: "4-0" }, { id: "5-0" }] });
			await moment();
			say("message", { id: "7-0" });
			return [limit, words("a"), words("b")].join(";");
		`, "10;message 6-0,message 7-0;ok #3,message 4-0,message 5-0,live,message 6-0,message 7-0"},
		{"who missed nothing, or wants nothing, is live at once", `
			live();
			take("b", "join", 3, { since: "5-0" });
			ok("join", { last: "5-0" });
			await moment();
			take("c", "join", 4, { limit: 0 });
			ok("join", { last: "5-0" });
			await moment();
			return [words("b"), words("c"), count("history"), links.length].join(";");
		`, "ok #3,live;ok #4,live;0;1"},
		{"what one missed comes over a connection of its own, as the one who it is", `
			live();
			take("b", "hello", 3, { token: "b's" });
			node.say("welcome", { req: node.last("hello").req });
			words("b");
			take("b", "join", 4, { since: "2-0" });
			ok("join", { last: "5-0" });
			await moment();
			const aside = links[1];
			aside.on.open();
			const { token } = aside.last("hello");
			aside.say("welcome", {});
			aside.say("welcome", { req: 1 });
			const { since } = aside.last("join");
			aside.say("ok", { req: 2, room: "design", recovered: true });
			aside.say("message", { room: "design", id: "5-0" });
			say("message", { id: "6-0" });
			aside.say("live", { room: "design" });
			await moment();
			return [token, since, words("b"), aside.closed, words("a")].join(";");
		`, "b's;2-0;ok #4,message 5-0,live,message 6-0;true;message 6-0"},
		{"who can't be told what it missed hears that, and others get theirs", `
			live();
			take("b", "join", 3, { since: "2-0" });
			ok("join", { last: "5-0" });
			await moment();
			take("c", "join", 4, { since: "2-0" });
			ok("join", { last: "5-0" });
			await moment();
			links[1].on.lost();
			await moment();
			await moment();
			const first = words("b");
			links[2].on.open();
			links[2].say("welcome", { req: 1 });
			links[2].say("ok", { req: 2, room: "design" });
			links[2].say("live", { room: "design" });
			await moment();
			say("message", { id: "6-0" });
			return [first, words("b"), words("c"), links[1].closed, count("leave")].join(";");
		`, "error #3 unavailable;;ok #4,live,message 6-0;true;0"},
		{"who waits too long for what it missed hears that", `
			live();
			const { setTimeout: true_ } = globalThis;
			globalThis.setTimeout = (f, ms, ...more) => true_(f, ms >= 20000 ? 0 : ms, ...more);
			take("b", "join", 3, { since: "2-0" });
			ok("join", { last: "5-0" });
			for (let i = 0; i < 5; i++) await moment();
			globalThis.setTimeout = true_;
			return words("b") + links[1].closed;
		`, "error #3 unavailabletrue"},
		{"a gap while one is brought up to date has it begin anew", `
			live();
			take("b", "join", 3, { limit: 10 });
			ok("join", { last: "5-0" });
			await moment();
			say("gap", { after: "5-0" });
			ok("history", { messages: [] });
			await moment();
			return events.at(-1) + ";" + words("a");
		`, "drop b;gap"},
		{"what is held for one is bounded", `
			live();
			take("b", "join", 3, { limit: 10 });
			for (let i = 0; i < 2000; i++) say("message", { id: "6-" + i });
			const before = events.at(-1);
			say("message", { id: "7-0" });
			return before + "," + events.at(-1);
		`, "open c,drop b"},
		{"a room is left with the last of those who are in it", `
			live();
			await newcomer(3);
			words("b");
			take("a", "leave", 4);
			const first = words("a") + count("leave");
			say("message", { id: "6-0" });
			const heard = words("a") + words("b");
			take("b", "leave", 5);
			ok("leave");
			say("message", { id: "7-0" });
			return [first, heard, words("b"), count("leave")].join(";");
		`, "ok #40;message 6-0;ok #5;1"},
		{"a tab that is gone is in no room, and hears nothing", `
			live();
			await newcomer(3);
			words("b");
			take("b", "ping", 4);
			hub.remove("b");
			ok("ping");
			say("message", { id: "6-0" });
			const first = words("b") + count("leave");
			hub.remove("a");
			return first + count("leave");
		`, "01"},
		{"who waits for a room that is refused asks for itself", `
			welcome();
			take("a", "join", 2);
			take("b", "join", 3);
			const once = count("join");
			node.say("error", { req: node.last("join").req, code: "unavailable" });
			const twice = count("join");
			ok("join", { last: "5-0" });
			return [once, twice, words("a"), words("b")].join(";");
		`, "1;2;error #2 unavailable;ok #3"},
		{"who waits for a room that its first one leaves asks for itself", `
			welcome();
			take("a", "join", 2);
			const first = node.last("join").req;
			take("b", "join", 3);
			take("a", "leave", 4);
			node.say("ok", { req: first, room: "design" });
			ok("leave");
			ok("join", { last: "5-0" });
			say("live");
			return [count("join"), words("a"), words("b")].join(";");
		`, "2;ok #4;ok #3,live"},
		{"who waits for a room is brought up to date once it is live", `
			welcome();
			take("a", "join", 2);
			take("b", "join", 3, { limit: 0 });
			ok("join", { last: "5-0" });
			const early = count("join") + words("b");
			say("live");
			ok("join", { last: "5-0" });
			await moment();
			return early + words("b");
		`, "1ok #3,live"},
		{"who leaves while it is brought up to date is told no more", `
			live();
			take("b", "join", 3, { limit: 10 });
			ok("join", { last: "5-0" });
			await moment();
			take("b", "leave", 4);
			ok("history", { messages: [{ id: "5-0" }] });
			await moment();
			say("message", { id: "6-0" });
			return words("b");
		`, "ok #4"},
		{"one that is refused what it missed is told why, and is not in the room", `
			live();
			take("b", "join", 3, { since: "2-0" });
			ok("join", { last: "5-0" });
			await moment();
			links[1].on.open();
			links[1].say("welcome", { req: 1 });
			links[1].say("error", { req: 2, code: "forbidden" });
			await moment();
			await moment();
			say("message", { id: "6-0" });
			return words("b") + links[1].closed;
		`, "error #3 forbiddentrue"},
		{"a fresh hello of the first welcomes nobody anew", `
			welcome();
			take("a", "hello", 2);
			node.say("welcome", { req: node.last("hello").req });
			return events.join();
		`, "open a,open b,open c"},
		{"who does not wait for a room any more is not brought into it", `
			welcome();
			take("a", "join", 2);
			take("b", "join", 3);
			take("b", "leave", 4);
			ok("join", { last: "5-0" });
			say("live");
			await moment();
			return [count("join"), words("b")].join(";");
		`, "1;ok #4"},
		{"a room that the node forgot is joined again", `
			live();
			take("a", "send", 3);
			node.say("error", { req: node.last("send").req, code: "not_joined" });
			take("a", "join", 4);
			ok("join", { last: "5-0" });
			return count("join") + words("a");
		`, "2error #3 not_joined,ok #4"},
		{"all are told that they were put out of a room, and may ask for it", `
			live();
			await newcomer(3);
			words("b");
			say("left", { code: "forbidden" });
			say("message", { id: "6-0" });
			const first = words("a") + ";" + words("b");
			take("b", "join", 4);
			return [first, count("join"), count("history")].join(";");
		`, "left forbidden;left forbidden;3;1"},
		{"what is said to nobody in particular is said to all", `
			welcome();
			node.say("error", { code: "bad_request" });
			node.say("bye", { code: 1012 });
			return words("a") + ";" + words("b");
		`, "error bad_request,bye 1012;error bad_request,bye 1012"},
		{"one that is closed says nothing more, and leaves no connection behind", `
			live();
			take("b", "join", 3, { since: "2-0" });
			ok("join", { last: "5-0" });
			await moment();
			hub.close();
			say("message", { id: "6-0" });
			return [words("a"), node.closed, links[1].closed].join(";");
		`, ";true;true"},
	} {
		if got := js[string](p, "(async () => {"+tabs+"\n"+tt.script+"\n})()", f.URL+"/parley/hub.js"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
