// Painting over a picture: after each stroke the component's value is the paint alone, as a PNG
// data address of the picture's size, or "" where there is none.
const picture = element.querySelector("img");
const canvas = element.querySelector("canvas");
const context = canvas.getContext("2d");
let strokes = [];
let stroke = null;

function show() {
  strokes = [];
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

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  const box = canvas.getBoundingClientRect();
  stroke = {
    colour: element.querySelector("input[name=paint]:checked").value,
    width: (Number(element.querySelector(".size").value) * canvas.width) / box.width,
    points: [place(event)],
  };
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
