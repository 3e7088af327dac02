'use strict';

// The page is `data`, seen as `state` says. A control names the field of
// `state` that it sets in its attribute data-bind; `changed` does the rest.

const data = JSON.parse(document.getElementById('data').textContent);
const titles = new Map(data.layers);
const hasScores = data.images.some((image) => image.miou !== null);

const state = {
  view: 'all',
  sort: hasScores ? 'iou up' : 'order up',
  text: '',
  left: data.layers[0]?.[0],
  right: (data.layers[1] ?? data.layers[0])?.[0],
  wipe: 50,
  opacity: 100,
};
const chosen = new Set(); // Classes; none stands for all.
let shown = []; // The images that pass the filters, in their order.

// So many images are added each time that the end of the page comes near.
const CHUNK = 40;
const DRAG_PIXELS = 4;
const NOTABLE_CLASSES = 3;
const NARROW_PIXELS = 700;

const SORTS = [
  ['iou up', 'IoU, worst first'],
  ['iou down', 'IoU, best first'],
  ['accuracy up', 'accuracy, worst first'],
  ['accuracy down', 'accuracy, best first'],
  ['name up', 'name'],
  ['order up', 'number'],
];

const byId = (id) => document.getElementById(id);

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const percent = (share) =>
  share === null ? '\u2013' : `${(100 * share).toFixed(1)}\u2009%`;

const address = (path) => path.split('/').map(encodeURIComponent).join('/');

function swatch(number) {
  const made = element('span', { className: 'swatch' });
  made.style.background = `rgb(${data.classes[number].color})`;
  return made;
}

// ---- An image's classes: rows of [class, share, share of labels, IoU] ----

const isChosen = ([number]) => chosen.size === 0 || chosen.has(number);

// mIoU; where classes are chosen, of those.
function imageIou(image) {
  if (chosen.size === 0) return image.miou;
  const values = image.classes
    .filter((row) => isChosen(row) && row[3] !== null)
    .map((row) => row[3]);
  if (values.length === 0) return null;
  return values.reduce((sum, value) => sum + value) / values.length;
}

// Worst IoU first; without labels, largest share first.
function rankedClasses(image) {
  const key = image.miou === null ? (row) => -row[1] : (row) => row[3];
  return [...image.classes].sort((a, b) => key(a) - key(b));
}

const SORT_KEYS = {
  iou: imageIou,
  accuracy: (image) => image.accuracy,
  name: (image) => image.name,
  order: () => 0, // They are in order, and sorting is stable.
};

// ---- Pictures ----

function img(image, layer, eager) {
  return element('img', {
    // Before `src`, or the picture is fetched at once.
    loading: eager ? 'eager' : 'lazy',
    width: image.width,
    height: image.height,
    alt: `${titles.get(layer)} of ${image.name}`,
    draggable: false,
    className: ['prediction', 'label'].includes(layer) ? 'colored' : '',
    src: address(image.layers[layer]),
  });
}

// An overlay is made here, so that it can leave classes out.
function picture(image, layer, eager = false) {
  const made = element('div', { className: 'picture' });
  made.dataset.layer = layer;
  if (!(layer in image.layers)) return made;
  if (layer === 'overlay' && 'image' in image.layers) {
    made.append(img(image, 'image', eager), img(image, 'prediction', eager));
  } else {
    made.append(img(image, layer, eager));
  }
  return made;
}

// Two pictures on top of each other; `onClick` if it is not dragged.
function stage(image, eager, onClick) {
  const left = picture(image, state.left, eager);
  const right = picture(image, state.right, eager);
  right.classList.add('over');
  const made = element(
    'div',
    { className: 'stage' },
    left,
    right,
    element('span', { className: 'divider' }),
    element('span', { className: 'tag left' }, titles.get(state.left)),
    element('span', { className: 'tag right' }, titles.get(state.right)),
  );
  made.style.setProperty('--ratio', image.width / image.height);
  let start = null;
  let isDragged = false;
  made.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    start = event.clientX;
    isDragged = false;
    made.setPointerCapture(event.pointerId);
  });
  made.addEventListener('pointermove', (event) => {
    if (start === null) return;
    isDragged ||= Math.abs(event.clientX - start) > DRAG_PIXELS;
    if (!isDragged) return;
    const box = made.getBoundingClientRect();
    setWipe((100 * (event.clientX - box.left)) / box.width);
  });
  made.addEventListener('pointerup', () => {
    if (start !== null && !isDragged) onClick?.();
    start = null;
  });
  made.addEventListener('pointercancel', () => (start = null));
  return made;
}

function setWipe(percentage) {
  state.wipe = Math.min(100, Math.max(0, percentage));
  changed('wipe');
}

// ---- Choosing classes ----

// One class of a coloured picture: a mask where red, green and blue are all
// the same as its own, and the picture where the mask is.
function classFilter(number) {
  const functions = ['R', 'G', 'B'].map((channel, index) => {
    const table = new Array(256).fill(0);
    table[data.classes[number].color[index]] = 1;
    return (
      `<feFunc${channel} type="discrete" tableValues="${table.join(' ')}"/>`
    );
  });
  return `
    <feComponentTransfer in="SourceGraphic">
      ${functions.join('')}
    </feComponentTransfer>
    <feColorMatrix result="mask${number}"
      values="0 0 0 0 0  0 0 0 0 0  0 0 0 0 0  1 1 1 0 -2"/>
    <feComposite operator="in" in="SourceGraphic" in2="mask${number}"
      result="class${number}"/>`;
}

// Coloured pictures show the chosen classes alone.
function filterColors() {
  const numbers = [...chosen];
  const nodes = numbers.map((number) => `<feMergeNode in="class${number}"/>`);
  byId('filters').innerHTML = `
    <filter id="only" color-interpolation-filters="sRGB"
      x="0" y="0" width="1" height="1">
      ${numbers.map(classFilter).join('')}
      <feMerge>${nodes.join('')}</feMerge>
    </filter>`;
  document.body.classList.toggle('filtered', numbers.length > 0);
}

// A class that can be chosen, with more text behind its name.
function classButton(number, ...more) {
  const made = element(
    'button',
    { type: 'button', className: 'class' },
    swatch(number),
    data.classes[number].name,
    ...more,
  );
  made.dataset.class = number;
  made.setAttribute('aria-pressed', chosen.has(number));
  made.addEventListener('click', () => {
    if (!chosen.delete(number)) chosen.add(number);
    const place = made.closest('ul, table').parentElement;
    changed('chosen');
    // The viewer has made new buttons.
    const again = place.querySelector(`[data-class="${number}"]`);
    // It may also have gone on to an image without this class.
    (again ?? place.querySelector('.class'))?.focus();
  });
  return made;
}

function fillLegend() {
  const counts = new Map();
  for (const image of data.images) {
    for (const [number] of image.classes) {
      counts.set(number, (counts.get(number) ?? 0) + 1);
    }
  }
  const buttons = data.classes.map(({ name, iou }, number) => {
    const count = counts.get(number) ?? 0;
    const value = iou === null ? '' : percent(iou);
    const button = classButton(number, element('small', {}, value));
    button.disabled = count === 0;
    button.title = `${name}: in ${count} of ${data.images.length} images`;
    return button;
  });
  // Classes that never occur come last.
  buttons.sort((a, b) => a.disabled - b.disabled);
  byId('classes').append(...buttons.map((button) => element('li', {}, button)));
  byId('error-key').hidden = !titles.has('error');
  // Where there is little room, the pictures come first.
  byId('legend').open = window.innerWidth > NARROW_PIXELS;
}

// ---- The sheet ----

function facts(image) {
  const open = element('button', { type: 'button', className: 'name' });
  open.textContent = image.name;
  open.addEventListener('click', () => openViewer(image));
  const size = `${image.width} \u00d7 ${image.height}`;
  const made = element('div', { className: 'facts' });
  made.append(element('h2', {}, open));
  made.append(element('p', { className: 'size' }, size));
  const isScored = image.miou !== null;
  if (isScored) {
    const name = chosen.size ? 'IoU (chosen)' : 'mIoU';
    const value = element('b', {}, percent(imageIou(image)));
    made.append(
      element('p', {}, `${name} `, value),
      element('p', {}, `accuracy ${percent(image.accuracy)}`),
    );
  }
  const rows = rankedClasses(image)
    .slice(0, NOTABLE_CLASSES)
    .map(([number, share, , iou]) => {
      const text = percent(isScored ? iou : share);
      const name = data.classes[number].name;
      return element('li', {}, swatch(number), `${name} ${text}`);
    });
  const title = isScored ? 'Lowest IoU' : 'Largest share of the image';
  made.append(element('ul', { title }, ...rows));
  return made;
}

function card(image) {
  const made = element('article', { className: 'card' });
  if (state.view === 'compare') {
    made.append(stage(image, false, () => openViewer(image)));
  } else {
    const row = element('div', { className: 'row' });
    for (const [layer, title] of data.layers) {
      const figure = element(
        'figure',
        {},
        picture(image, layer),
        element('figcaption', {}, title),
      );
      figure.addEventListener('click', () => openViewer(image, layer));
      row.append(figure);
    }
    made.append(row);
  }
  made.append(facts(image));
  return made;
}

function sortedImages() {
  const text = state.text.toLowerCase();
  const [field, direction] = state.sort.split(' ');
  const sign = direction === 'up' ? 1 : -1;
  const key = SORT_KEYS[field];
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (field !== 'name') return sign * (a - b);
    return a.localeCompare(b, undefined, { numeric: true });
  };
  return data.images
    .filter(({ name }) => name.toLowerCase().includes(text))
    .filter(({ classes }) => chosen.size === 0 || classes.some(isChosen))
    .sort((a, b) => compare(key(a), key(b)));
}

// Adds cards until there are `count`, as far as there are images.
function grow(count) {
  const sheet = byId('sheet');
  const begin = sheet.children.length;
  sheet.append(...shown.slice(begin, Math.max(begin, count)).map(card));
}

function fillSheet() {
  shown = sortedImages();
  byId('sheet').replaceChildren();
  document.body.dataset.view = state.view;
  grow(CHUNK);
  watchEnd();
  const counts = new Set([shown.length, data.images.length]);
  byId('status').textContent = `${[...counts].join(' of ')} images`;
}

const endObserver = new IntersectionObserver(
  ([entry]) => {
    if (!entry.isIntersecting) return;
    grow(byId('sheet').children.length + CHUNK);
    watchEnd();
  },
  { rootMargin: '1500px' },
);

// Observed anew, it also tells that the end is still near.
function watchEnd() {
  endObserver.disconnect();
  if (byId('sheet').children.length < shown.length) {
    endObserver.observe(byId('end'));
  }
}

// ---- Controls ----

// Shows a field of `state` in its controls.
function syncControls(name) {
  const value = String(state[name]);
  for (const control of document.querySelectorAll(`[data-bind=${name}]`)) {
    if (control.type === 'radio') control.checked = control.value === value;
    else if (control.value !== value) control.value = value;
  }
}

function syncClasses() {
  for (const button of document.querySelectorAll('[data-class]')) {
    const number = Number(button.dataset.class);
    button.setAttribute('aria-pressed', chosen.has(number));
  }
  byId('everything').hidden = chosen.size === 0;
  filterColors();
}

// Brings the page in line with a field of `state`, or with `chosen`.
function changed(name) {
  const image = shown[position];
  syncControls(name);
  if (name === 'wipe' || name === 'opacity') {
    const value = `${state[name]}%`;
    document.documentElement.style.setProperty(`--${name}`, value);
    return;
  }
  if (name === 'chosen') syncClasses();
  const isSide = name === 'left' || name === 'right';
  if (!isSide || state.view === 'compare') fillSheet();
  if (byId('viewer').open) showImage(Math.max(0, shown.indexOf(image)));
}

function fillControls() {
  for (const place of ['comparison', 'viewer-comparison']) {
    byId(place).append(byId('comparison-controls').content.cloneNode(true));
  }
  for (const select of document.querySelectorAll(
    '[data-bind=left], [data-bind=right]',
  )) {
    select.append(
      ...data.layers.map(([value, text]) => element('option', { value }, text)),
    );
  }
  byId('sort').append(
    ...SORTS.filter(([value]) => hasScores || /name|order/.test(value)).map(
      ([value, text]) => element('option', { value }, text),
    ),
  );
  byId('last-key').textContent = data.layers.length;
  document.addEventListener('input', ({ target }) => {
    const name = target.dataset.bind;
    if (!name) return;
    state[name] = target.type === 'range' ? Number(target.value) : target.value;
    changed(name);
  });
  byId('tools').addEventListener('submit', (event) => event.preventDefault());
  byId('everything').addEventListener('click', () => {
    chosen.clear();
    changed('chosen');
  });
}

byId('title').textContent = data.title;
byId('summary').textContent = hasScores
  ? `mIoU ${percent(data.miou)}, pixel accuracy ${percent(data.accuracy)}`
  : '';
fillLegend();
fillControls();
Object.keys(state).forEach(syncControls);
syncClasses();
fillSheet();
