// Painting over a picture: after each stroke the component's value is the paint alone, as a PNG
// data address of the picture's size, or "" where there is none.
const picture = element.querySelector("img");
const canvas = element.querySelector("canvas");
const context = canvas.getContext("2d");
const here = element.querySelector(".here");
let strokes = [];
let stroke = null;
let at = null; // where the keyboard paints, in the picture's pixels

function show() {
  strokes = [];
  at = null;
  here.hidden = true;
  const address = props.picture || "";
  picture.hidden = !address;
  canvas.hidden = !address;
  if (!address) return;
  picture.onload = () => {
    canvas.width = picture.naturalWidth;
    canvas.height = picture.naturalHeight;
  };
  picture.src = address;
}

function draw(drawn) {
  context.strokeStyle = context.fillStyle = drawn.colour;
  context.lineWidth = drawn.width;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  for (const [x, y] of drawn.points) context.lineTo(x, y);
  const [x, y] = drawn.points[0];
  if (drawn.points.length === 1) context.lineTo(x + 0.01, y);
  context.stroke();
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

function tell() {
  props.value = strokes.length ? canvas.toDataURL("image/png") : "";
  trigger("input");
}

function redraw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  strokes.forEach(draw);
  tell();
}

function begin(point) {
  const scale = canvas.width / canvas.getBoundingClientRect().width;
  const colour = element.querySelector("input[name=paint]:checked").value;
  return { colour, width: Number(element.querySelector(".size").value) * scale, points: [point] };
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  stroke = begin(place(event));
  draw(stroke);
});
canvas.addEventListener("pointermove", (event) => {
  if (!stroke) return;
  stroke.points.push(place(event));
  draw(stroke);
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => {
    if (!stroke) return;
    strokes.push(stroke);
    stroke = null;
    tell();
  });
}
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  const width = begin([0, 0]).width;
  at ||= [canvas.width / 2, canvas.height / 2];
  if (event.key in STEPS) {
    const [dx, dy] = STEPS[event.key];
    const reach = width / 2;
    at[0] = Math.min(canvas.width, Math.max(0, at[0] + dx * reach));
    at[1] = Math.min(canvas.height, Math.max(0, at[1] + dy * reach));
  } else if (event.key === " ") {
    strokes.push(begin([...at]));
    redraw();
  } else if (event.key === "Backspace") {
    strokes.pop();
    redraw();
  } else return;
  event.preventDefault();
  const scale = canvas.getBoundingClientRect().width / canvas.width;
  here.hidden = false;
  here.style.width = here.style.height = `${width * scale}px`;
  here.style.left = `${at[0] * scale}px`;
  here.style.top = `${at[1] * scale}px`;
});
element.querySelector(".undo").addEventListener("click", () => {
  strokes.pop();
  redraw();
});
element.querySelector(".again").addEventListener("click", () => {
  strokes = [];
  redraw();
});
watch("picture", show);
show();
