package web_test

import "testing"

// pretend is a node within the page: what it hears and says, and when, is in the hands of the script.
const pretend = `
	const load = () => import(%s).catch(load); // the network may change meanwhile
	const { Parley } = await load();
	const moment = () => new Promise((done) => setTimeout(done, 1));
	const links = [];
	class Pretend {
		said = [];
		constructor() {
			links.push(this);
			setTimeout(() => this.onopen?.());
		}
		send(text) {
			const frame = JSON.parse(text);
			this.said.push(frame);
			if (frame.op === "hello" && !Pretend.rude) queueMicrotask(() => this.greet(frame));
		}
		greet({ req }) {
			this.say({ op: "welcome", req, user: { id: "me", name: "" }, session: "s", ping: 25, limits: { text: 4096, frame: 65536 } });
		}
		say(frame) {
			this.onmessage?.({ data: JSON.stringify(frame) });
		}
		close() {}
	}
	const link = () => links.at(-1);
	const all = (op) => link().said.filter((frame) => frame.op === op);
	const asked = async (op, nth = 0) => {
		while (!link() || !all(op)[nth]) await moment();
		return all(op)[nth];
	};
	const say = (op, fields) => link().say({ op, room: "design", ...fields });
	const ok = ({ req }, fields) => say("ok", { req, ...fields });
	const refuse = ({ req }, code, fields) => say("error", { req, code, message: code, ...fields });
	const joined = async (last = "5-0") => {
		const join = await asked("join");
		ok(join, { last, members: [{ id: "bo", name: "Bo" }], count: 1 });
		say("live");
		return join;
	};
	const lose = async () => {
		const old = link();
		chat.reconnect();
		while (link() === old) await moment();
	};
	const how = (promise) => promise.then(({ id }) => id ?? "ok", ({ code }) => code);
	const message = (id, text, from = "bo", key) => say("message", { id, from: { id: from, name: from }, text, key, at: 1 });
	const options = { WebSocket: Pretend, persist: false };
	let chat = new Parley("ws://node", options);
	let room = chat.join("design", { keep: 3 });
	const heard = [];
	room.on("message", ({ text }) => heard.push(text));
	const begin = (more) => { // another client, with other options
		chat.close();
		chat = new Parley("ws://node", { ...options, ...more });
		room = chat.join("design");
		return chat;
	};
	const texts = () => room.messages.map(({ text }) => text).join();
	const typists = () => room.typists.map(({ id }) => id).join();
`

func TestARoomKeepsItsPromises(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(request, int) []string { return nil }) // serves the modules
	p := newTab(t)
	p.open(blankPage(t))
	for _, tt := range []struct{ name, script, want string }{
		{"one in which nothing was said is resumed where it was", `
			await joined("5-0");
			await lose();
			return (await asked("join")).since;
		`, "5-0"},
		{"the newest messages are kept, and no more", `
			await joined();
			for (let i = 6; i < 11; i++) message(i + "-0", "m" + i);
			return texts();
		`, "m8,m9,m10"},
		{"what comes before it is joined is of an earlier stay", `
			await joined();
			await lose();
			await asked("join");
			message("6-0", "early");
			say("signal", { kind: "typing", user: { id: "bo" } });
			const before = heard.join() + typists();
			await joined("6-0");
			message("6-0", "late");
			return before + heard.join();
		`, "late"},
		{"who missed something is told how much of others", `
			await joined();
			await lose();
			let told;
			room.on("live", (detail) => (told = detail));
			ok(await asked("join"), { last: "8-0", members: [], count: 0 });
			message("6-0", "a");
			message("7-0", "b", "me");
			message("8-0", "c");
			say("live");
			return JSON.stringify(told);
		`, `{"resumed":true,"missed":2,"gap":false,"last":"8-0"}`},
		{"an old repeat is not remembered for ever", `
			await joined();
			message("6-0", "said", "bo", "k");
			message("7-0", "said", "bo", "k");
			for (let i = 0; i < 1001; i++) message("8-" + i, "more", "bo", "k" + i);
			message("9-0", "said", "bo", "k");
			return [heard[0], heard[1], heard.at(-1)].join();
		`, "said,more,said"},
		{"the same key names another message of another sender, and with another content", `
			await joined();
			message("6-0", "it is ordered", "bo", "order 17");
			message("7-0", "thanks", "bo", "order 17");
			message("8-0", "thanks", "bo order", "17");
			message("9-0", "thanks", "bo", "order 17");
			return heard.join();
		`, "it is ordered,thanks,thanks"},
		{"what is told again after a gap is heard once, and kept", `
			await joined();
			message("6-0", "a");
			message("7-0", "b", "bo", "k");
			const before = texts();
			say("gap", { after: "7-0", last: "3-0" });
			message("6-0", "a");
			message("7-0", "b", "bo", "k");
			message("8-0", "c");
			message("9-0", "b", "bo", "k");
			return [before, heard, texts()].join(" ");
		`, "a,b a,b,c a,b,c"},
		{"who leaves with something unsaid is told once the client is closed", `
			await joined();
			room.send("hi");
			await asked("send");
			const left = room.leave();
			chat.close();
			return Promise.race([left.then(() => "ok"), moment().then(() => "never")]);
		`, "ok"},
		{"its echo acknowledges no message whose answer may yet come, and it is shown once", `
			await joined();
			let id;
			room.send("hi").then((sent) => (id = sent.id));
			const { key } = await asked("send");
			message("6-0", "hi", "me", key);
			await moment();
			const early = [id, room.snapshot().outgoing.length, room.outgoing.length];
			refuse(await asked("send"), "unavailable", { retry_after: 1 });
			ok(await asked("send", 1), { id: "6-0" });
			while (!id) await moment();
			return [...early, id, room.outgoing.length, texts()].join();
		`, ",0,1,6-0,0,hi"},
		{"its echo acknowledges no message whose answer was lost: it is repeated, and shown once", `
			await joined();
			const sent = room.send("hi");
			const { key } = await asked("send");
			await lose();
			ok(await asked("join"), { last: "7-0", members: [], count: 0 });
			message("6-0", "somebody else's with that key", "me", key);
			const early = room.snapshot().outgoing.length;
			message("7-0", "hi", "me", key);
			say("live");
			const again = await asked("send");
			const late = [room.snapshot().outgoing.length, room.outgoing.length];
			ok(again, { id: "7-0" });
			return [early, again.key === key, ...late, (await sent).id, room.outgoing.length, all("send").length].join();
		`, "1,true,0,1,7-0,0,1"},
		{"what has come back is sent, though it is too late to ask again, or refused", `
			await joined();
			const ids = [];
			const { now } = Date;
			const ends = [
				async (send) => {
					Date.now = () => now() + 11 * 60000;
					refuse(send, "unavailable", { retry_after: 1 });
				},
				async (send) => {
					await lose();
					await joined("6-0");
					refuse(await asked("send"), "forbidden");
				},
			];
			for (const end of ends) {
				const sent = room.send("hi");
				const send = all("send").at(-1);
				message("6-" + ids.length, "hi", "me", send.key);
				await end(send);
				ids.push((await sent).id);
				Date.now = now;
			}
			return [...ids, room.outgoing.length].join();
		`, "6-0,6-1,0"},
		{"what could not be confirmed is sent once it comes back", `
			await joined();
			const { now } = Date;
			const sent = how(room.send("hi"));
			const { key, req } = await asked("send");
			Date.now = () => now() + 11 * 60000;
			refuse({ req }, "unavailable", { retry_after: 1 });
			const code = await sent;
			Date.now = now;
			const told = new Promise((done) => room.on("outgoing", ({ state, id }) => state === "sent" && done(id)));
			message("6-0", "hi", "me", key);
			return [code, await told, room.outgoing.length, all("send").length].join();
		`, "expired,6-0,0,1"},
		{"the same words with the same key are said anew when no repeat can come any more", `
			await joined();
			const minutes = (n) => n * 60000 + "-0";
			message(minutes(1), "the report is there", "bo", "report");
			message(minutes(11), "the report is there", "bo", "report");
			message(minutes(13), "the report is there", "bo", "report");
			message(minutes(14), "the report is there", "bo", "report");
			return room.messages.map(({ id }) => id).join();
		`, "60000-0,780000-0"},
		{"what was given up is not repeated, whatever became of it", `
			await joined();
			const ends = [];
			for (const code of ["unavailable", "forbidden"]) {
				const sent = how(room.send("hi"));
				const send = await asked("send", ends.length);
				room.discard(send.key);
				refuse(send, code, { retry_after: 1 });
				ends.push(await sent);
				await moment();
			}
			const next = room.send("next");
			ok(await asked("send", 2), { id: "6-0" });
			return [...ends, (await next).id, room.outgoing.length, all("send").length].join();
		`, "discarded,discarded,6-0,0,3"},
		{"what is to wait is not repeated before, over a second connection either", `
			await joined();
			await lose();
			await joined();
			room.send("hi");
			refuse(await asked("send"), "rate_limited", { retry_after: 60000 });
			for (let i = 0; i < 20; i++) await moment();
			return String(all("send").length);
		`, "1"},
		{"a join that is to wait is tried again when it is told", `
			let waits = 0;
			room.on("waiting", () => waits++);
			const { setTimeout: true_ } = globalThis;
			let wait;
			globalThis.setTimeout = (f, ms, ...more) => true_(f, ms === 70000 ? ((wait = ms), 0) : ms, ...more);
			refuse(await asked("join"), "unavailable", { retry_after: 70000 });
			await asked("join", 1);
			globalThis.setTimeout = true_;
			return waits + " " + wait;
		`, "1 70000"},
		{"a room that was refused is asked for again with what was not sent", `
			refuse(await asked("join"), "forbidden");
			const code = await how(room.send("hi"));
			const sent = new Promise((done) => room.on("outgoing", ({ state, id }) => state === "sent" && done(id)));
			room.retry(room.outgoing[0].key);
			ok(await asked("join", 1), { last: "5-0", members: [], count: 0 });
			say("live");
			ok(await asked("send"), { id: "6-0" });
			return code + " " + (await sent);
		`, "forbidden 6-0"},
		{"what failed is tried anew from the beginning", `
			await joined();
			const { now } = Date;
			room.send("hi");
			const first = await asked("send");
			Date.now = () => now() + 11 * 60000;
			refuse(first, "unavailable", { retry_after: 1 });
			while (room.outgoing[0]?.error?.code !== "expired") await moment();
			room.retry(first.key);
			const again = await asked("send", 1);
			Date.now = now;
			return String(again.key === first.key);
		`, "true"},
		{"who comes back while the last words are on their way stays", `
			await joined();
			const sent = how(room.send("last words"));
			const send = await asked("send");
			const left = room.leave();
			const again = chat.join("design");
			ok(send, { id: "6-0" });
			await left;
			const more = how(room.send("and more"));
			ok(await asked("send", 1), { id: "7-0" });
			return [await sent, await more, again === room, all("leave").length].join();
		`, "6-0,7-0,true,0"},
		{"history that the connection took with it is asked for again", `
			await joined();
			const history = room.history();
			await asked("history");
			await lose();
			await joined();
			ok(await asked("history"), { messages: [{ id: "4-0", from: { id: "bo" }, text: "old", at: 1 }], more: false });
			return (await history).messages[0].text;
		`, "old"},
		{"typing is told every few seconds, while it is live", `
			room.typing();
			await joined();
			for (let i = 0; i < 5; i++) room.typing();
			await asked("signal");
			const { now } = Date;
			Date.now = () => now() + 3000;
			for (let i = 0; i < 5; i++) room.typing();
			Date.now = now;
			await asked("signal", 1);
			await moment();
			return String(all("signal").length);
		`, "2"},
		{"who types is shown until they leave, are silent, have said it, or the connection is lost", `
			await joined();
			const type = (fields) => say("signal", { kind: "typing", user: { id: "bo" }, ...fields });
			const seen = [];
			const ends = [
				() => say("presence", { event: "leave", user: { id: "bo" }, count: 0 }),
				() => type({ data: { on: false } }),
				() => message("6-0", "said"),
				() => lose(),
			];
			for (const end of ends) {
				type();
				const before = typists();
				await end();
				seen.push(before + ">" + typists());
			}
			await joined("6-0");
			say("signal", { kind: "typing", user: { id: "me" } });
			return seen.join() + typists();
		`, "bo>,bo>,bo>,bo>"},
		{"a member who comes, goes or has another name is told", `
			await joined();
			const who = () => [...room.members.values()].map(({ name }) => name).join("+") + room.count;
			const seen = [who()];
			for (const [event, user, count] of [["join", { id: "cy", name: "Cy" }, 2], ["update", { id: "cy", name: "Cyd" }, 2], ["leave", { id: "bo" }, 1], ["count", undefined, 300]]) {
				say("presence", { event, user, count });
				seen.push(who());
			}
			say("presence", { event: "sync", members: [{ id: "di", name: "Di" }], count: 1 });
			return [...seen, who()].join();
		`, "Bo1,Bo+Cy2,Bo+Cyd2,Cyd1,Cyd300,Di1"},
		{"a name that is refused is taken back", `
			await joined();
			Pretend.rude = true;
			let told;
			chat.on("refused", ({ value, error }) => (told = value + " " + error.code));
			const renamed = chat.rename("Bad");
			refuse(await asked("hello", 1), "bad_request");
			await renamed;
			Pretend.rude = false;
			await lose();
			return told + " " + (await asked("hello")).name;
		`, "Bad bad_request undefined"},
		{"of two names that are refused none is kept, whichever is refused first", `
			const came = [];
			for (const first of [0, 1]) {
				Pretend.rude = false;
				begin({ name: "Ann" });
				await joined();
				Pretend.rude = true;
				const renames = ["Bea", "Cleo"].map((name) => chat.rename(name));
				await asked("hello", 2);
				for (const nth of [first, 1 - first]) refuse(all("hello")[1 + nth], "bad_request");
				await Promise.all(renames);
				Pretend.rude = false;
				await lose();
				came.push((await asked("hello")).name);
			}
			return came.join();
		`, "Ann,Ann"},
		{"a name that is refused leaves the one that was chosen after it", `
			await joined();
			Pretend.rude = true;
			const renames = ["Bea", "Cleo"].map((name) => chat.rename(name));
			await asked("hello", 2);
			refuse(all("hello")[1], "bad_request");
			await renames[0];
			await lose();
			return (await asked("hello")).name;
		`, "Cleo"},
		{"a room that one was put out of is left to itself", `
			await joined();
			const sent = how(room.send("hi"));
			const send = await asked("send");
			say("left", { code: "forbidden", message: "banned" });
			refuse(send, "forbidden");
			message("6-0", "after");
			return [await sent, await how(room.send("more")), heard.length, room.live, room.error.code, all("join").length].join();
		`, "forbidden,forbidden,0,false,forbidden,1"},
		{"a token is asked for before each connection, and a room that was refused is asked for with a fresh one", `
			let asks = 0;
			const before = link();
			begin({ token: async () => "token " + ++asks });
			while (link() === before) await moment();
			const first = (await asked("hello")).token;
			refuse(await asked("join"), "forbidden");
			link().say({ op: "welcome", user: { id: "me", name: "" }, expires: 1, limits: { text: 4096, frame: 65536 } }); // it is to be renewed now
			const second = (await asked("hello", 1)).token;
			await asked("join", 1);
			return [first, second, all("join").length].join();
		`, "token 1,token 2,2"},
		{"a token of a function that is refused again and again ends it, and one now and then does not", `
			Pretend.rude = true;
			begin({ token: async () => "a token" });
			const connection = async (good) => {
				const hello = await asked("hello");
				if (good) link().greet(hello);
				else refuse(hello, "unauthorized");
				while (chat.state === "connecting") await moment();
				chat.reconnect();
			};
			for (const good of [false, false, false, true, false, false, false, true]) await connection(good);
			const state = chat.state;
			let more = 0;
			for (; chat.state !== "closed"; more++) await connection(false);
			return state + more;
		`, "connecting4"},
		{"what failed once is given up with its signal", `
			await joined();
			const giveUp = new AbortController();
			const sent = how(room.send("hi", { signal: giveUp.signal }));
			refuse(await asked("send"), "forbidden");
			const code = await sent;
			const before = room.outgoing.length;
			giveUp.abort();
			await moment();
			return code + before + room.outgoing.length;
		`, "forbidden10"},
		{"a signal that aborts takes back what is not said, and leaves a room", `
			const leaving = new AbortController();
			const other = chat.join("other", { signal: leaving.signal });
			await joined();
			ok(await asked("join", 1), { room: "other", last: "5-0", members: [], count: 0 });
			leaving.abort();
			const leave = await asked("leave");
			const giveUp = new AbortController();
			room.send("first");
			const sent = room.send("hi", { signal: giveUp.signal }).catch(({ name }) => name);
			ok(await asked("send"), { id: "6-0" }, giveUp.abort());
			const early = room.send("never", { signal: giveUp.signal }).catch(({ name }) => name);
			await moment();
			return [leave.room, await sent, await early, room.outgoing.length, all("send").length].join();
		`, "other,AbortError,AbortError,0,1"},
		{"a gap empties what is kept, and is told, also of what came while away", `
			await joined();
			message("6-0", "before");
			const gaps = [];
			room.on("gap", ({ after }) => gaps.push(after));
			let told;
			room.on("live", ({ gap }) => (told = gap));
			await lose();
			ok(await asked("join"), { last: "9-0", members: [], count: 0 });
			say("gap", { after: "6-0", last: "3-0" });
			message("4-0", "after");
			say("live");
			const first = texts() + told;
			await lose();
			await joined("4-0");
			return [first, told, gaps].join();
		`, "aftertrue,false,6-0"},
		{"the past comes page by page, newest first, to its beginning", `
			await joined();
			const old = (id) => ({ id, from: { id: "bo" }, text: id, at: 1 });
			const read = (async () => {
				const ids = [];
				for await (const { id } of room.past("5-0", { limit: 2 })) ids.push(id);
				return ids.join();
			})();
			ok(await asked("history"), { messages: [old("3-0"), old("4-0")], more: true });
			const { before, limit } = await asked("history", 1);
			ok(await asked("history", 1), { messages: [old("2-0")], more: false });
			return [await read, before, limit, all("history").length].join(" ");
		`, "4-0,3-0,2-0 3-0 2 2"},
		{"who listens for changes is told of each, until they end it", `
			let changes = 0;
			await joined();
			const end = room.subscribe(() => changes++);
			const before = room.snapshot();
			const same = before === room.snapshot();
			message("6-0", "a");
			const other = before !== room.snapshot() && room.snapshot().messages.length;
			const told = changes > 0;
			end();
			changes = 0;
			message("7-0", "b");
			return [same, other, told, changes].join();
		`, "true,1,true,0"},
		{"a room that is joined later is asked for at once, with as many messages as are wanted", `
			await joined();
			chat.join("other", { limit: 7 });
			const { room: name, limit } = await asked("join", 1);
			return name + limit;
		`, "other7"},
		{"a name that another tab chose is ours, over the next connection too", `
			await joined();
			let told;
			chat.on("renamed", ({ name }) => (told = name));
			say("presence", { event: "update", user: { id: "me", name: "Ada" }, count: 1 });
			const { name } = chat.user;
			await lose();
			return [told, name, (await asked("hello")).name].join();
		`, "Ada,Ada,Ada"},
		{"a name that is known is said with its time, and the session with it", `
			await joined();
			Pretend.rude = true;
			const renamed = chat.rename("Ada");
			const hello = await asked("hello", 1);
			link().say({ op: "welcome", req: hello.req, user: { id: "me", name: "Ada" }, named: 7000, session: "s2", ping: 25, limits: { text: 4096, frame: 65536 } });
			await renamed;
			await lose();
			const { name, named, session } = await asked("hello");
			Pretend.rude = false;
			return [hello.named, name, named, session].join();
		`, ",Ada,7000,s2"},
		{"a client ends with its signal, and with the reason that is given", `
			const end = new AbortController();
			begin({ signal: end.signal });
			end.abort();
			const states = [chat.state, begin({ signal: end.signal }).state];
			begin();
			chat.close(1000, "enough");
			return [...states, await room.ready.catch(({ message }) => message)].join();
		`, "closed,closed,This Parley was closed: enough"},
		{"what is said after a reload is kept behind what was said before", `
			const stays = { persist: true };
			begin(stays);
			room.send("one");
			room.send("two");
			begin(stays);
			room.send("three");
			begin(stays);
			const kept = room.outgoing.map(({ text }) => text);
			for (const { key } of room.outgoing) room.discard(key);
			return kept.join();
		`, "one,two,three"},
		{"whoever waits when it is closed is told", `
			await joined();
			const sent = how(room.send("hi"));
			await asked("send");
			await lose();
			const ready = how(room.ready);
			chat.close();
			return [await sent, await ready].join();
		`, "closed,closed"},
	} {
		if got := js[string](p, "(async () => {"+pretend+"\ntry {"+tt.script+"} finally { chat.close() }\n})()", f.URL+"/parley.js"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
