(alpha) => {
  // The contrast of every visible text with what is behind it; over the bare page also with two dots of opacity alpha.
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((c, i) => a * c + (1 - a) * under[i]);
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const root = getComputedStyle(document.documentElement);
  const emotions = "neutral calm happy sad angry fearful disgust surprised other accent".split(" ");
  const dots = emotions.map((name) => rgba(root.getPropertyValue("--" + name)).with(3, 1 - (1 - alpha) ** 2));
  const ratios = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { data, parentElement: element } = walker.currentNode;
    if (!data.trim() || element.closest("[aria-hidden=true], .unseen, noscript, script") || !element.checkVisibility()) continue;
    const layers = [];
    let bare = true;
    for (let at = element; at; at = at.parentElement) {
      const ground = rgba(getComputedStyle(at).backgroundColor);
      if (ground[3] > 0) layers.push(ground);
      if (ground[3] === 1) { bare = at === document.body; break; }
    }
    const ground = layers.reduceRight((under, layer) => over(layer, under), [255, 255, 255]);
    const grounds = bare ? [ground, ...dots.map((dot) => over(dot, ground))] : [ground];
    for (const behind of grounds) {
      const text = over(rgba(getComputedStyle(element).color), behind);
      ratios.push([data.trim().slice(0, 40), Math.round(100 * ratio(text, behind)) / 100]);
    }
  }
  return ratios;
}
