// The smallest page that works: plain text over a WebSocket.
const socket = new WebSocket(location.href.replace(/^http/, "ws"));
const log = document.getElementById("log");
const text = document.getElementById("text");
const show = (what) => log.appendChild(document.createElement("li")).textContent = what;

socket.onmessage = (event) => show(event.data);
socket.onclose = () => show("The connection is closed.");
document.getElementById("composer").onsubmit = (event) => {
  event.preventDefault();
  if (!text.value) return;
  socket.send(text.value);
  show(`You: ${text.value}`);
  text.value = "";
};
