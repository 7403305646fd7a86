// The images that somebody has chosen or dropped, and which is which.

const THERMAL = /(^|[^a-z])(thermal|therm|th|infrared|ir|lwir|tir)([^a-z]|$)/i;
const GREY = 0, WITH_ALPHA = 6;  // colour types of a PNG

export class Slots {
  // fields: lists of fields that will do, as /v1/model says. onChange: called when the choice differs.
  constructor(root, modes, fields, onChange) {
    this.files = {};
    this.fields = fields;
    this.onChange = onChange;
    this.slots = Object.fromEntries([...root.querySelectorAll(".slot")].map((slot) => [slot.dataset.field, slot]));
    this.modes = modes;
    for (const [field, slot] of Object.entries(this.slots)) {
      slot.querySelector("input").addEventListener("change", (event) => {
        if (event.target.files.length) this.put({ [field]: event.target.files[0] });
      });
      slot.addEventListener("dragover", () => slot.classList.add("over"));
      slot.addEventListener("dragleave", () => slot.classList.remove("over"));
    }
    modes.addEventListener("change", () => this.setMode(modes.querySelector(":checked").value));
    this.setMode("pair");
  }

  get needed() { return this.mode === "rgbt" ? ["rgbt"] : this.fields[0]; }

  get chosen() { return Object.fromEntries(this.needed.filter((f) => this.files[f]).map((f) => [f, this.files[f]])); }

  get complete() { return this.needed.every((field) => this.files[field]); }

  setMode(mode) {
    this.mode = mode;
    this.modes.querySelector(`[value=${mode}]`).checked = true;
    for (const [field, slot] of Object.entries(this.slots)) slot.hidden = !this.needed.includes(field);
    this.onChange();
  }

  put(files) {
    for (const [field, file] of Object.entries(files)) {
      this.files[field] = file;
      const slot = this.slots[field];
      slot.querySelector(".note").textContent = file.name;
      slot.classList.add("filled");
      this.picture(field, file);
    }
    this.onChange();
  }

  // Show an image in its slot; formats that the browser does not know (TIFF) stay without.
  picture(field, blob) {
    const image = this.slots[field].querySelector("img");
    URL.revokeObjectURL(image.src);
    image.hidden = true;
    image.onload = () => { image.hidden = false; };
    image.src = URL.createObjectURL(blob);
  }

  // Take dropped files; returns whether they make a whole request.
  async drop(list, target) {
    const files = [...list];
    Object.values(this.slots).forEach((slot) => slot.classList.remove("over"));
    const slot = target.closest?.(".slot");
    if (files.length === 1 && slot) {
      this.put({ [slot.dataset.field]: files[0] });
    } else if (files.length === 1) {
      this.place(files[0], await pngType(files[0]));
    } else {
      const [rgb, thermal] = await ordered(files.slice(0, 2));
      this.setMode("pair");
      this.put(Object.fromEntries(Object.entries({ rgb, thermal }).filter(([field]) => this.needed.includes(field))));
    }
    return this.complete;
  }

  place(file, type) {
    if (type === WITH_ALPHA) {
      this.setMode("rgbt");
      this.put({ rgbt: file });
      return;
    }
    this.setMode("pair");
    const looksThermal = THERMAL.test(file.name) || type === GREY;
    const field = looksThermal ? "thermal" : "rgb";
    this.put({ [this.needed.includes(field) ? field : this.needed[0]]: file });
  }
}

// Two files as colour and thermal: by name, else by kind, else as they came.
async function ordered(files) {
  const named = files.map((file) => THERMAL.test(file.name));
  if (named[0] !== named[1]) return named[0] ? [files[1], files[0]] : files;
  const grey = (await Promise.all(files.map(pngType))).map((type) => type === GREY);
  return grey[0] && !grey[1] ? [files[1], files[0]] : files;
}

// The colour type in a PNG's header; undefined for other files.
async function pngType(file) {
  const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  return head[1] === 0x50 && head[2] === 0x4e && head[3] === 0x47 ? head[25] : undefined;
}
