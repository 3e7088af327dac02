// The viewer: one image of the page, large. It stands behind contact_sheet.js in
// the page's script, and uses what is there.

let position = 0; // In `shown`, of the image in the viewer.

const SLIDER_STEP = 5;

function openViewer(image, layer) {
  if (layer && layer !== state.left) {
    state.right = layer;
    changed('right');
  }
  byId('viewer').showModal();
  showImage(shown.indexOf(image));
}

function showImage(place) {
  if (place < 0 || place >= shown.length) return;
  position = place;
  const image = shown[place];
  byId('viewer-name').textContent = image.name;
  byId('viewer-place').textContent = `${place + 1} / ${shown.length}`;
  byId('previous').disabled = place === 0;
  byId('next').disabled = place === shown.length - 1;
  byId('viewer-stage').replaceChildren(stage(image, true));
  byId('viewer-scores').replaceChildren(scoreTable(image));
}

function scoreTable(image) {
  const isScored = image.miou !== null;
  const columns = ['Class', ...(isScored ? ['IoU', 'truth'] : []), 'predicted'];
  const rows = rankedClasses(image).map((row) => {
    const [number, share, labelShare, iou] = row;
    const values = isScored ? [iou, labelShare, share] : [share];
    return element(
      'tr',
      { className: isChosen(row) ? '' : 'other' },
      element('td', {}, classButton(number)),
      ...values.map((value) =>
        element('td', { className: 'number' }, percent(value)),
      ),
    );
  });
  const head = columns.map((name, index) =>
    element('th', { className: index ? 'number' : '' }, name),
  );
  const caption = `${image.width} \u00d7 ${image.height}`;
  const scores = isScored
    ? `, mIoU ${percent(image.miou)}, accuracy ${percent(image.accuracy)}`
    : '';
  return element(
    'table',
    {},
    element('caption', {}, caption + scores),
    element('thead', {}, element('tr', {}, ...head)),
    element('tbody', {}, ...rows),
  );
}

// Back at the sheet, the keyboard goes on where the viewer was.
function leaveViewer() {
  grow(position + 1);
  byId('sheet').children[position]?.querySelector('.name').focus();
}

function pressKey(event) {
  const isBrowsers = event.ctrlKey || event.metaKey || event.altKey;
  const isTyping = event.target.matches('select');
  if (!byId('viewer').open || isBrowsers || isTyping) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const layer = data.layers[Number(event.key) - 1];
  if (layer) {
    state.right = layer[0];
    changed('right');
  } else if (step && event.shiftKey) {
    event.preventDefault();
    setWipe(state.wipe + step * SLIDER_STEP);
  } else if (step && event.target.type !== 'range') {
    showImage(position + step);
  }
}

byId('previous').addEventListener('click', () => showImage(position - 1));
byId('next').addEventListener('click', () => showImage(position + 1));
byId('close').addEventListener('click', () => byId('viewer').close());
byId('viewer').addEventListener('close', leaveViewer);
document.addEventListener('keydown', pressKey);
